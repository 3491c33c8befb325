//! Redis drivers of other people: each does the same against a server and against the proxy, and
//! has to see the same. redis-rs here; redis-py and ioredis by programs in `tests/drivers` that
//! print what they see.

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use redis::{Cmd, Connection, FromRedisValue, PushInfo, Value};

use crate::drivers::{compare, observe_at};
use crate::harness::{Portcullis, Setup, wait_until};
use crate::redis::Redis;
use crate::redis_fixture::{Certified, verifier};

const PASSWORD: &str = "a-password-of-drivers";

/// A server that wants a password, of the users `app` and `default`.
fn server() -> Redis {
    let app = format!("user app on >{PASSWORD} ~* &* +@all");
    Redis::with_settings(&[&app, &format!("requirepass {PASSWORD}")])
}

/// A proxy at which logins end: a password over TLS, or over a Unix socket.
fn terminating(server: &Redis, certified: &Certified) -> Portcullis {
    let file = certified.folder().join("account.password");
    fs::write(&file, PASSWORD).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut setup = Setup::redis_trusted(server.address());
    setup.listen = "[{unix: \"{folder}/redis.sock\", mode: \"0600\"}, \"127.0.0.1:{port}\"]".into();
    let account = |user| format!("{{users: {user}, user: {user}, password_file: {file:?}}}");
    setup.datasource_extra = certified.tls("allowed", "")
        + &format!(
            "\x20   authentication: [{{method: password}}]\n\
             \x20   upstream_login: [{}, {}]\n",
            account("app"),
            account("default")
        );
    let secret = verifier(PASSWORD);
    let identities = ["app", "default"]
        .map(|user| format!("  - {{user: {user}, login: {{scram: \"{secret}\"}}}}\n"))
        .concat();
    setup.rules.push(("identities.yaml".into(), format!("version: 1\nidentities:\n{identities}")));
    Portcullis::start(&setup)
}

/// Runs the program directly, with the login relayed, and with the login ended at the proxy, each
/// with a server of its own, and compares line by line.
fn sees_the_same(program: &str) {
    let certified = Certified::new();
    let authority = certified.folder().join("ca.crt");
    let servers = [server(), server(), server()];
    let relay = Portcullis::start(&Setup::redis_trusted(servers[1].address()));
    let terminated = terminating(&servers[2], &certified);
    let url = |scheme, address| format!("{scheme}://app:{PASSWORD}@{address}/0");
    let (direct, relayed, ended) = thread::scope(|scope| {
        let at = |url: String| scope.spawn(move || observe_at(program, &url, None));
        let direct = at(url("redis", servers[0].address()));
        let relayed = at(url("redis", relay.address()));
        let ended = observe_at(program, &url("rediss", terminated.address()), Some(&authority));
        (direct.join().unwrap(), relayed.join().unwrap(), ended)
    });
    compare(program, &direct, &[("relayed", relayed), ("ended at the proxy", ended)]);
}

#[test]
fn redis_py_cannot_tell() {
    sees_the_same("redis_driver.py");
}

#[test]
fn ioredis_cannot_tell() {
    sees_the_same("ioredis_driver.js");
}

// === redis-rs ===

/// What redis-rs sees, one line an observation.
struct Observer {
    url: String,
    seen: Vec<String>,
}

fn cmd(line: &str) -> Cmd {
    let mut words = line.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        cmd.arg(word);
    });
    cmd
}

impl Observer {
    fn say(&mut self, what: &str, seen: impl Debug) {
        self.seen.push(format!("{what} {seen:?}"));
    }

    fn connect(&self) -> Connection {
        redis::Client::open(self.url.as_str()).unwrap().get_connection().unwrap()
    }

    /// One command, its answer or its error.
    fn ask<V: FromRedisValue + Debug>(&mut self, connection: &mut Connection, line: &str) {
        let answer = cmd(line).query::<V>(connection).map_err(|error| error.to_string());
        self.say(line, answer);
    }

    fn values(&mut self) {
        let mut connection = self.connect();
        for line in [
            "FLUSHALL",
            "ACL WHOAMI",
            "CLIENT SETNAME me",
            "CLIENT GETNAME",
            "SELECT 3",
            "SET a 1 EX 1000 NX",
            "SET a 2 NX",
            "INCRBYFLOAT a 1.5",
            "SELECT 0",
            "GET a",
            "SELECT 16",
            "HSET h f v g w",
            "HGETALL h",
            "RPUSH l a b c",
            "LRANGE l 0 -1",
            "SADD s m",
            "SMEMBERS s",
            "ZADD z 1.5 m inf n",
            "ZRANGE z 0 -1 WITHSCORES",
            "ZSCORE z m",
            "XADD st 1-1 f v",
            "XRANGE st - +",
            "XGROUP CREATE st g 0",
            "XREADGROUP GROUP g c COUNT 1 STREAMS st >",
            "XACK st g 1-1",
            "EXISTS l none",
            "TYPE z",
            "SCAN 0 COUNT 1000 MATCH st",
            "OBJECT ENCODING a",
            "CONFIG GET maxclients",
            "EVAL return{KEYS[1],{1,false}} 1 k",
            "EVALSHA 0123 0",
            "BLPOP none 0.01",
            "LPUSH h 1",
            "NOSUCH a",
            "GET",
            "AUTH app wrong",
            "WAIT 0 0",
        ] {
            self.ask::<Value>(&mut connection, line);
        }
    }

    fn pipelines(&mut self) {
        let mut connection = self.connect();
        let mut pipe = redis::pipe();
        for n in 0..10_000 {
            pipe.cmd("INCRBY").arg("sum").arg(n).cmd("GET").arg("sum").ignore();
        }
        let answers: Vec<i64> = pipe.query(&mut connection).unwrap();
        self.say("pipeline", (answers.len(), answers.last()));
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("SET").arg("t").arg(1).ignore().cmd("INCR").arg("t");
        self.say("transaction", pipe.query::<Vec<i64>>(&mut connection));
        let mut other = self.connect();
        for line in ["WATCH t", "MULTI", "GET t", "EXEC"] {
            if line == "MULTI" {
                cmd("SET t 5").exec(&mut other).unwrap();
            }
            self.ask::<Value>(&mut connection, line);
        }
        for line in ["MULTI", "SET t x", "NOSUCH", "EXEC", "GET t"] {
            self.ask::<Value>(&mut connection, line);
        }
    }

    fn subscriptions(&mut self) {
        let mut connection = self.connect();
        let mut listener = self.connect();
        let mut channels = listener.as_pubsub();
        // One by one: of several the driver awaits the first confirmation only, and what another
        // connection does then may come first.
        channels.subscribe("c").unwrap();
        channels.subscribe("d").unwrap();
        channels.psubscribe("c*").unwrap();
        self.ask::<i64>(&mut connection, "PUBLISH c hello");
        self.ask::<i64>(&mut connection, "PUBLISH nobody hello");
        let mut heard = Vec::new();
        for _ in 0..2 {
            let message = channels.get_message().unwrap();
            let pattern: Option<String> = message.get_pattern().unwrap();
            let text: String = message.get_payload().unwrap();
            heard.push((pattern, message.get_channel_name().to_owned(), text));
        }
        heard.sort();
        self.say("heard", heard);
        channels.unsubscribe("c").unwrap();
        channels.punsubscribe("c*").unwrap();
        self.ask::<i64>(&mut connection, "PUBLISH c gone");
        for n in 0..1000 {
            cmd(&format!("PUBLISH d {n}")).exec(&mut connection).unwrap();
        }
        let sum: i64 =
            (0..1000).map(|_| channels.get_message().unwrap().get_payload::<i64>().unwrap()).sum();
        self.say("many", sum);
        drop(channels);
        self.ask::<Value>(&mut listener, "GET none");
    }

    fn blocking(&mut self) {
        let mut connection = self.connect();
        let mut other = self.connect();
        let waiting =
            thread::spawn(move || cmd("BLPOP none queue 20").query::<Value>(&mut connection));
        wait_until("it waits", crate::harness::SOON, || {
            let info: String = cmd("INFO clients").query(&mut other).unwrap();
            info.contains("blocked_clients:1")
        });
        self.ask::<i64>(&mut other, "RPUSH queue a b");
        self.say("blocked", waiting.join().unwrap());
    }

    fn tracking(&mut self) {
        let mut connection = self.connect();
        let (sender, pushes) = std::sync::mpsc::channel::<PushInfo>();
        connection.set_push_sender(sender);
        self.ask::<Value>(&mut connection, "CLIENT TRACKING ON");
        self.ask::<Value>(&mut connection, "GET tracked");
        cmd("SET tracked 1").exec(&mut self.connect()).unwrap();
        self.ask::<Value>(&mut connection, "GET tracked");
        let push = pushes.try_iter().last().map(|push| (push.kind, push.data));
        self.say("invalidated", push);
    }

    fn big(&mut self) {
        let mut connection = self.connect();
        let value = b"0123456789abcdef".repeat(4 * 1024 * 1024);
        redis::cmd("SET").arg("big").arg(&value).exec(&mut connection).unwrap();
        self.ask::<i64>(&mut connection, "STRLEN big");
        let back: Vec<u8> = cmd("GET big").query(&mut connection).unwrap();
        self.say("big", back == value);
        self.ask::<i64>(&mut connection, "DEL big");
    }
}

fn observe_redis_rs(url: &str) -> String {
    let mut observer = Observer { url: url.to_owned(), seen: Vec::new() };
    observer.values();
    observer.pipelines();
    observer.subscriptions();
    observer.blocking();
    if url.contains("resp3") {
        observer.tracking();
    }
    observer.big();
    observer.seen.join("\n") + "\nend\n"
}

#[test]
fn redis_rs_cannot_tell() {
    let certified = Certified::new();
    let servers = [server(), server(), server()];
    let relay = Portcullis::start(&Setup::redis_trusted(servers[1].address()));
    let terminated = terminating(&servers[2], &certified);
    let socket = terminated.folder().join("redis.sock");
    for protocol in ["resp2", "resp3"] {
        let tcp = |address| format!("redis://app:{PASSWORD}@{address}/0?protocol={protocol}");
        let unix = format!(
            "redis+unix://{}?user=app&pass={PASSWORD}&protocol={protocol}",
            socket.display()
        );
        let direct = observe_redis_rs(&tcp(servers[0].address()));
        let relayed = observe_redis_rs(&tcp(relay.address()));
        let ended = observe_redis_rs(&unix);
        compare("redis-rs", &direct, &[("relayed", relayed), ("ended at the proxy", ended)]);
    }
}
