//! What rules may speak of beside relations: the commands of key-value stores, and keys of masks.

use std::sync::Arc;

use crate::analysis::redis::{Found, Table, Uses, facts};
use crate::facts::{Facts, Why};
use crate::mask::Masker;
use crate::policy::Vocabulary;
use crate::wire::resp::request::{RequestLimits, Scan, Scanner};

/// The commands that are known, and what rules may say of them.
#[derive(Clone, Debug)]
pub struct Language {
    table: Arc<Table>,
    vocabulary: Vocabulary,
}

impl Language {
    /// Of a process with this configuration.
    pub fn new(table: Arc<Table>, masker: &Masker) -> Self {
        let vocabulary = commands(&table);
        let vocabulary = if masker.has_key() { vocabulary.with_mask_keys() } else { vocabulary };
        Self { table, vocabulary }
    }

    /// For rules that are looked at without a configuration. Whether it gives masks a key is not
    /// known then, and is asked when the rules are put in force.
    pub fn without_configuration() -> Self {
        let table = Arc::new(Table::builtin());
        let vocabulary = commands(&table).with_mask_keys();
        Self { table, vocabulary }
    }

    /// The commands that are known.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// What rules may name.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// What a command does and touches that is written as a line of text.
    pub fn command(&self, text: &str) -> Facts {
        let construct = |what: &str| Facts::unknown(Why::Construct(what.to_owned()));
        let line = [text.trim().as_bytes(), b"\r\n"].concat();
        let mut scanner = Scanner::new(RequestLimits::LOGGED_IN);
        match scanner.scan(&line) {
            Ok(Scan::Command { len, form: _ }) if len == line.len() => {}
            Ok(_) | Err(_) => return construct("a text that is not one command"),
        }
        let arguments = scanner.args(&line);
        let args: Vec<&[u8]> = (0..arguments.len()).filter_map(|at| arguments.get(at)).collect();
        let command = match self.table.find(args.as_slice()) {
            Found::Command(command) => command,
            Found::Unknown => return construct("a command that is not known"),
            Found::UnknownSubcommand(_) => return construct("a subcommand that is not known"),
        };
        if !command.arity_fits(args.len()) {
            return construct("a wrong number of arguments");
        }
        let mut uses = Uses::default();
        match command.uses(args.as_slice(), &mut uses) {
            Ok(()) => facts(command, args.as_slice(), &uses),
            Err(why) => construct(why.0),
        }
    }
}

fn commands(table: &Table) -> Vocabulary {
    let commands = table.commands().iter().map(|command| &command.fact);
    Vocabulary::default().with_commands(commands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Certainty;

    #[test]
    fn a_line_of_text_is_understood_as_a_server_reads_it() {
        let language = Language::without_configuration();
        let facts = language.command("hset \"customer:1\" email 'a b'");
        assert_eq!(facts.certainty, Certainty::Known);
        assert_eq!(&*facts.store.command.as_ref().unwrap().name, "hset");
        assert_eq!(&*facts.store.keys[0].key, b"customer:1");
        let sub = language.command("CLIENT LIST");
        assert_eq!(&*sub.store.command.as_ref().unwrap().name, "client|list");
        for wrong in
            ["", "GET", "GET a b", "NOSUCH a", "CLIENT NOSUCH", "GET \"a", "GET a\r\nGET b"]
        {
            let facts = language.command(wrong);
            assert!(matches!(facts.certainty, Certainty::Unknown(_)), "{wrong}: {facts:?}");
        }
    }
}
