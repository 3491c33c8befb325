"""psycopg in encodings other than UTF-8: what the server reads and what comes back."""

import psycopg
from common import arguments, say


def encodings(given):
    texts = {"latin1": "Grüße", "latin9": "100 €", "euc_jp": "日本語", "win1251": "Привет"}
    for encoding, text in texts.items():
        with psycopg.connect(given.conninfo, client_encoding=encoding, autocommit=True) as connection:
            row = connection.execute(
                f"select '{text}', %s::text, octet_length('{text}'), '{text}' as \"{text}\"", [text]
            )
            say("encoding", encoding, row.fetchone(), [column.name for column in row.description])
            try:
                connection.execute(f"select '{text}' frm a b")
            except psycopg.Error as error:
                say("encoded error", error.diag.message_primary, error.diag.statement_position)
            connection.execute("set client_encoding to utf8")
            say("changed", connection.info.encoding, connection.execute("select 'ü'").fetchone())
    say("end")


if __name__ == "__main__":
    encodings(arguments(__doc__))
