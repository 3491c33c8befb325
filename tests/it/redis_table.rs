//! The written-down commands beside a live Redis: what the table lacks, nobody can judge.

use std::collections::{BTreeMap, BTreeSet};

use crate::redis::{Redis, Reply};

/// What one command is: arity, categories.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    arity: i64,
    categories: BTreeSet<String>,
}

fn words(reply: &Reply) -> BTreeSet<String> {
    let (Reply::Array(Some(items)) | Reply::Set(items)) = reply else { panic!("{reply:?}") };
    items
        .iter()
        .map(|item| match item {
            Reply::Simple(word) => word.trim_start_matches('@').to_owned(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn describe(reply: &Reply, found: &mut BTreeMap<String, Described>) {
    let Reply::Array(Some(parts)) = reply else { panic!("{reply:?}") };
    let (Reply::Bulk(Some(name)), Reply::Integer(arity)) = (&parts[0], &parts[1]) else {
        panic!("{parts:?}")
    };
    let described = Described { arity: *arity, categories: words(&parts[6]) };
    found.insert(String::from_utf8(name.clone()).unwrap(), described);
    let Reply::Array(Some(subcommands)) = &parts[9] else { panic!("{parts:?}") };
    subcommands.iter().for_each(|subcommand| describe(subcommand, found));
}

#[test]
fn the_table_of_commands_is_the_live_servers() {
    let server = Redis::with_settings(&[]);
    let mut theirs = BTreeMap::new();
    let Reply::Array(Some(commands)) = server.admin().command(&["COMMAND"]) else {
        panic!("no list")
    };
    commands.iter().for_each(|command| describe(command, &mut theirs));
    let table = include_str!("../../src/analysis/redis/commands.tsv");
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let ours: BTreeMap<String, Described> = lines
        .filter_map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let [name, servers, _since, arity, _flags, categories, _keys, _differs] = columns[..]
            else {
                panic!("{line}")
            };
            let categories = categories.split(',').filter(|word| *word != "-");
            let described = Described {
                arity: arity.parse().unwrap(),
                categories: categories.map(str::to_owned).collect(),
            };
            servers.contains("redis-7.0").then(|| (name.to_owned(), described))
        })
        .collect();
    assert!(theirs.len() > 300, "{} commands", theirs.len());
    for (name, described) in &theirs {
        assert_eq!(ours.get(name), Some(described), "{name}");
    }
    let gone: Vec<_> = ours.keys().filter(|name| !theirs.contains_key(*name)).collect();
    assert!(gone.is_empty(), "not on the server: {gone:?}");
}
