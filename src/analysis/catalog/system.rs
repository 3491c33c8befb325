//! Which system relations anyone may read: an allow-list. What is not on it (statistics, activity,
//! password hashes, large objects, locks, files, whatever a later version adds) counts as holding
//! other people's data.

/// The system schemas.
const SCHEMAS: [&str; 2] = ["pg_catalog", "information_schema"];

/// Relations of `pg_catalog` that hold definitions only; what `psql`, drivers and ORMs read.
const DEFINITIONS: &[&str] = &[
    "pg_aggregate",
    "pg_am",
    "pg_amop",
    "pg_amproc",
    "pg_attrdef",
    "pg_attribute",
    "pg_auth_members",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_conversion",
    "pg_database",
    "pg_default_acl",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_group",
    "pg_index",
    "pg_indexes",
    "pg_inherits",
    "pg_init_privs",
    "pg_language",
    "pg_matviews",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_partitioned_table",
    "pg_policies",
    "pg_policy",
    "pg_proc",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_publication_tables",
    "pg_range",
    "pg_rewrite",
    "pg_roles",
    "pg_rules",
    "pg_seclabel",
    "pg_seclabels",
    "pg_sequence",
    "pg_sequences",
    "pg_settings",
    "pg_shdepend",
    "pg_shdescription",
    "pg_shseclabel",
    "pg_statistic_ext",
    "pg_tables",
    "pg_tablespace",
    "pg_timezone_abbrevs",
    "pg_timezone_names",
    "pg_transform",
    "pg_trigger",
    "pg_ts_config",
    "pg_ts_config_map",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_type",
    "pg_user",
    "pg_views",
];

/// Whether a schema belongs to the system. Tables of TOAST hold rows in pieces and belong, too.
pub(super) fn is_system(schema: &str) -> bool {
    SCHEMAS.contains(&schema) || schema == "pg_toast"
}

/// Whether a relation of a system schema may hold other people's data or statements.
pub(super) fn is_sensitive(schema: &str, name: &str) -> bool {
    match schema {
        // Options of user mappings are passwords of other servers.
        "information_schema" => name.contains("user_mapping"),
        "pg_catalog" => DEFINITIONS.binary_search(&name).is_err(),
        _ => is_system(schema),
    }
}

/// Relations that exist in any PostgreSQL and are named when no server was asked.
pub(super) fn always() -> impl Iterator<Item = (&'static str, &'static str)> {
    DEFINITIONS
        .iter()
        .chain(&[
            "pg_authid",
            "pg_largeobject",
            "pg_locks",
            "pg_shadow",
            "pg_stat_activity",
            "pg_statistic",
            "pg_stats",
        ])
        .map(|name| ("pg_catalog", *name))
        .chain(
            ["columns", "routines", "schemata", "table_constraints", "tables", "views"]
                .map(|name| ("information_schema", name)),
        )
}
