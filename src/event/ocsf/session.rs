//! Events of a session: login and end; and the part every event of a session repeats.

use std::net::{IpAddr, SocketAddr};

use super::super::SessionRecord;
use super::super::json::{Json, escape};
use super::process::members;
use super::{Effect, Frame, ID_BYTES_MAX, Kind, NAME_BYTES_MAX, ROLES, Trail};

/// A session's part of its events, escaped once.
#[derive(Debug)]
pub struct SessionJson {
    /// The session's id, escaped.
    pub(super) uid: Box<[u8]>,
    /// The members `src_endpoint` and `dst_endpoint`.
    pub(super) endpoints: Box<[u8]>,
    /// The members `actor`, `src_endpoint`, `dst_endpoint` and `database`.
    pub(super) who: Box<[u8]>,
    /// Our own members: the datasource.
    pub(super) own: Box<[u8]>,
    /// A part did not fit its bound.
    pub(super) cut: bool,
}

impl SessionRecord {
    pub(super) fn prepared(&self) -> &SessionJson {
        self.json.get_or_make(|| self.prepare())
    }

    fn prepare(&self) -> SessionJson {
        let mut uid = Vec::new();
        escape(&mut uid, &self.uid, ID_BYTES_MAX);
        let endpoints = members(|json| {
            json.object("src_endpoint", |json| source(json, self.client));
            json.object("dst_endpoint", |json| self.destination(json));
        });
        let mut who = Vec::new();
        let mut json = Json::new(&mut who);
        json.object("actor", |json| {
            json.object("user", |json| self.user(json));
            json.text("app_name", &self.application, NAME_BYTES_MAX);
            json.object("session", |json| self.identity(json));
        });
        json.members(&endpoints);
        json.object("database", |json| self.database(json));
        let cut = json.is_cut();
        SessionJson {
            uid: uid.into(),
            endpoints,
            who: who.into(),
            own: members(|json| {
                json.text("datasource", &self.datasource, NAME_BYTES_MAX);
                if let Some(account) = &self.account {
                    json.text("upstream_user", account, NAME_BYTES_MAX);
                }
                if let Some(subject) = &self.subject {
                    json.text("auth_subject", subject, NAME_BYTES_MAX);
                }
            }),
            cut,
        }
    }

    fn user(&self, json: &mut Json<'_>) {
        json.text("name", &self.user, NAME_BYTES_MAX);
        json.integer("type_id", 1);
        if !self.roles.is_empty() {
            json.list("groups", self.roles.iter(), ROLES, |json, role| {
                json.item(|json| json.text("name", role, NAME_BYTES_MAX));
            });
        }
    }

    fn identity(&self, json: &mut Json<'_>) {
        json.text("uid", &self.uid, ID_BYTES_MAX);
        json.integer("created_time", self.began_us / 1000);
    }

    fn destination(&self, json: &mut Json<'_>) {
        let (host, port) = &self.server;
        let is_address = host.parse::<IpAddr>().is_ok();
        json.text(if is_address { "ip" } else { "hostname" }, host, NAME_BYTES_MAX);
        json.integer("port", u64::from(*port));
        json.word("svc_name", self.product);
    }

    fn database(&self, json: &mut Json<'_>) {
        json.text("name", &self.database, NAME_BYTES_MAX);
        json.word("type", self.product);
        json.integer("type_id", if self.product == "Redis" { 6 } else { 1 });
    }
}

impl Frame<'_> {
    pub(super) fn session_opened(&self, json: &mut Json<'_>, method: &'static str) {
        self.head(json, Kind { class: 3002, activity: 1, severity: 1 });
        json.word("message", "authentication succeeded");
        self.login(json, "session.opened", Some(method));
        Effect::ALLOWED.write(json);
        self.login_fields(json);
    }

    pub(super) fn login_failed(
        &self,
        json: &mut Json<'_>,
        code: &str,
        (method, why): (Option<&'static str>, Option<&'static str>),
    ) {
        self.head(json, Kind { class: 3002, activity: 1, severity: 3 });
        json.word("message", "authentication failed");
        self.login(json, "login.failed", method);
        Effect::UNAUTHORIZED.write(json);
        json.text("status_code", code, ID_BYTES_MAX);
        if let Some(reason) = why.or_else(|| reason(code)) {
            json.word("status_detail", reason);
        }
        self.login_fields(json);
    }

    pub(super) fn session_closed(&self, json: &mut Json<'_>, end: &'static str) {
        self.head(json, Kind { class: 6005, activity: 99, severity: 1 });
        json.word("activity_name", "Disconnect");
        json.word("message", "session closed");
        self.metadata(json, "session.closed", self.trail());
        self.who(json);
        json.integer("type_id", 1);
        Effect::ALLOWED.write(json);
        self.own_fields(json, |json| {
            json.word("end", end);
            if let Some(session) = self.session() {
                let lasted = self.event.at.wall_us.saturating_sub(session.began_us);
                json.integer("duration_us", lasted);
            }
        });
    }

    /// Who is or was connected, from where, to what.
    pub(super) fn who(&self, json: &mut Json<'_>) {
        if let Some(session) = self.session() {
            json.members(&session.prepared().who);
        }
    }

    /// Our own fields, the session's first.
    pub(super) fn own_fields(&self, json: &mut Json<'_>, write: impl FnOnce(&mut Json<'_>)) {
        self.unmapped(json, |json| {
            if let Some(session) = self.session() {
                json.members(&session.prepared().own);
            }
            write(json);
        });
    }

    pub(super) fn trail(&self) -> Trail {
        let cut = self.session().is_some_and(|session| session.prepared().cut);
        Trail { decision: None, cut }
    }

    fn login(&self, json: &mut Json<'_>, code: &'static str, method: Option<&'static str>) {
        self.metadata(json, code, self.trail());
        match self.session() {
            Some(session) => {
                json.object("user", |json| session.user(json));
                json.object("session", |json| session.identity(json));
                json.members(&session.prepared().endpoints);
                json.object("service", |json| {
                    json.text("name", &session.datasource, NAME_BYTES_MAX);
                });
                json.flag("is_remote", session.client.is_some());
            }
            None => {
                json.object("user", |json| json.word("name", "unknown"));
                json.object("service", |json| json.word("name", "unknown"));
            }
        }
        if let Some(method) = method {
            json.word("auth_protocol", method);
            json.integer("auth_protocol_id", 99);
        }
    }

    /// What a login asked for; the class has no attribute for it.
    fn login_fields(&self, json: &mut Json<'_>) {
        self.own_fields(json, |json| {
            if let Some(session) = self.session() {
                json.text("database", &session.database, NAME_BYTES_MAX);
                json.text("application", &session.application, NAME_BYTES_MAX);
            }
        });
    }
}

fn source(json: &mut Json<'_>, client: Option<SocketAddr>) {
    match client {
        Some(address) => {
            json.text("ip", &address.ip().to_canonical().to_string(), NAME_BYTES_MAX);
            json.integer("port", u64::from(address.port()));
        }
        None => json.word("name", "local socket"),
    }
}

/// The condition name of a SQLSTATE a login can fail with.
fn reason(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" => "invalid_password",
        "28000" => "invalid_authorization_specification",
        "3D000" => "invalid_catalog_name",
        "53300" => "too_many_connections",
        "57P03" => "cannot_connect_now",
        "08006" | "08001" => "upstream_unreachable",
        _ => return None,
    })
}
