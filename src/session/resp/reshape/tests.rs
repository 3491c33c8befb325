use bytes::{Buf as _, BytesMut};

use super::*;
use crate::analysis::redis::{Found, Shape, Table};
use crate::mask::MaskKey;
use crate::name::{Glob, RuleId};
use crate::obligation::{JsonPath, MaskFn, Token, ValueMask};

/// A mask on these fields, or on all values.
fn mask(function: MaskFn, fields: &[&str]) -> ValueMask {
    let globs: Vec<_> = fields.iter().map(|field| Glob::new(field)).collect();
    ValueMask {
        pattern: "*".into(),
        fields: (!fields.is_empty()).then(|| globs.into()),
        path: None,
        function,
        class: None,
        rule: RuleId("rule".into()),
    }
}

fn at(path: &str, mask: ValueMask) -> ValueMask {
    ValueMask { path: Some(JsonPath::parse(path).unwrap()), ..mask }
}

fn constant() -> MaskFn {
    MaskFn::Constant("#".into())
}

/// The reply to this command, whose keys owe these masks.
fn job(shape: &Shape, args: &str, keys: &[(&str, &[ValueMask])]) -> Job {
    let args: Vec<&[u8]> = args.split(' ').map(str::as_bytes).collect();
    let keys: Vec<_> =
        keys.iter().map(|(name, masks)| (name.as_bytes(), KeyMasks::new(masks))).collect();
    Job::new(shape, &args[..], keys.iter().map(|(name, masks)| (*name, masks)))
}

/// What the client gets for bytes that arrive in pieces of this length.
fn feed(owed: &Owed, protocol: Protocol, data: &[u8], piece: usize) -> Result<Vec<u8>, Malformed> {
    let key = MaskKey::new(1, vec![7; 32].into()).unwrap();
    let masker = Masker::with_key(&key);
    let with = With { masker: &masker, protocol };
    let mut reshaper = Reshaper::default();
    let (mut input, mut out) = (BytesMut::new(), ByteQueue::default());
    let mut step = Step::Open;
    for part in data.chunks(piece) {
        assert_eq!(step, Step::Open, "the reply is over before its end");
        input.extend_from_slice(part);
        step = reshaper.feed(owed, with, &mut input, &mut out)?;
    }
    assert_eq!((step, input.len()), (Step::Done, 0), "the reply is over at its end");
    assert!(reshaper.is_between());
    Ok(out.copy_to_bytes(out.remaining()).to_vec())
}

#[track_caller]
fn check(job: &Job, reply: &str, shown: &str) {
    check_owed(&Owed::One(job.clone()), reply, shown);
}

/// Replies and what is shown of them, as [`wire`] reads them.
#[track_caller]
fn check_owed(owed: &Owed, reply: &str, shown: &str) {
    let (reply, shown) = (wire(reply), wire(shown));
    for piece in [1, 2, 7, usize::MAX] {
        let got = feed(owed, Protocol::Resp3, &reply, piece).unwrap();
        let (got, shown) = (got.escape_ascii().to_string(), shown.escape_ascii().to_string());
        assert_eq!(got, shown, "in pieces of {piece}");
    }
}

/// One word for each line; `$value` for both lines of a bulk string; `^` for a blank, `^T` for what
/// stands in the place of an error's text.
fn wire(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in text.split(' ') {
        match word.strip_prefix('$') {
            Some(value) if value != "-1" => {
                let value = value.replace('^', " ");
                out.extend_from_slice(format!("${}\r\n{value}\r\n", value.len()).as_bytes());
            }
            _ => {
                let line = word.replace("^T", &format!("^{}", error::WITHHELD)).replace('^', " ");
                out.extend_from_slice(format!("{line}\r\n").as_bytes());
            }
        }
    }
    out
}

fn each(shape: Shape) -> Shape {
    Shape::Each(Box::new(shape))
}

fn pairs(left: Shape, right: Shape) -> Shape {
    Shape::Pairs(Box::new(left), Box::new(right))
}

fn tuple(shapes: &[Shape]) -> Shape {
    Shape::Tuple(shapes.into())
}

#[test]
fn one_value() {
    let masks = [mask(MaskFn::Partial { prefix: 1, suffix: 1, fill: '*' }, &[])];
    let get = job(&Shape::Value, "GET k", &[("k", &masks)]);
    check(&get, "$secret", "$s****t");
    check(&get, "$-1", "$-1");
    check(&get, "_", "_");
    check(&get, "+secret", "$s****t");
    check(&get, ":12345", "$1***5");
    check(&get, ",1.25", "$1**5");
    check(&get, "#t", "$****");
    check(&get, "=10 txt:secret", "$s****t");
    check(&get, "-WRONGTYPE^x", "-WRONGTYPE^x");
    check(&get, "*2 $secret *1 $other", "*2 $s****t *1 $o***r");
    check(&get, "|1 +k +secret $secret", "$s****t");
}

#[test]
fn fields_and_values() {
    let masks = [mask(constant(), &["ssn"])];
    let all = job(&pairs(Shape::Field, Shape::Value), "HGETALL k", &[("k", &masks)]);
    check(&all, "*4 $name $Ada $ssn $123", "*4 $name $Ada $ssn $#");
    check(&all, "%2 $name $Ada $ssn $123", "%2 $name $Ada $ssn $#");
    check(&all, "*2 *2 $name $Ada *2 $ssn $123", "*2 *2 $name $Ada *2 $ssn $#");
    check(&all, "*3 $name $Ada $123", "*3 $# $# $#");
    check(&all, "~2 $name $Ada", "~2 $# $#");
    check(&all, "*2 $ssn *2 $a $b", "*2 $ssn *2 $# $#");
    check(&all, "*0", "*0");
    check(&all, "%0", "%0");
}

#[test]
fn the_table_of_shapes() {
    let all = [mask(constant(), &[])];
    let masked = |shape: &Shape, args, reply, shown| {
        check(&job(shape, args, &[("k", &all)]), reply, shown);
    };
    masked(&Shape::Other, "TTL k", "*2 $a *1 %1 $b $c", "*2 $a *1 %1 $b $c");
    let range = each(Shape::Value);
    masked(&range, "LRANGE k 0 -1", "*3 $a $-1 $b", "*3 $# $-1 $#");
    masked(&range, "SMEMBERS k", "~2 $a $b", "~2 $# $#");
    masked(&range, "LPOP k", "$a", "$#");
    masked(&range, "LPOP k 1", "*-1", "*-1");
    masked(&range, "?", "%1 $a $b", "%1 $# $#");
    let scores = pairs(Shape::Value, Shape::Other);
    masked(&scores, "ZRANGE k 0 -1 WITHSCORES", "*4 $a $1 $b $2", "*4 $# $1 $# $2");
    masked(&scores, "ZRANGE k 0 -1 WITHSCORES", "*2 *2 $a ,1 *2 $b ,2", "*2 *2 $# ,1 *2 $# ,2");
    masked(&scores, "ZPOPMIN k", "*2 $a ,1", "*2 $# ,1");
    masked(&scores, "?", "*2 *2 $a ,1 $b", "*2 *2 $# ,1 $#");
    masked(&scores, "?", "*2 *3 $a ,1 ,2 $b", "*2 *3 $# $# $# $b");
    masked(&tuple(&[]), "?", "*1 $a", "*1 $#");
    let scan = tuple(&[Shape::Other, pairs(Shape::Field, Shape::Value)]);
    masked(&scan, "HSCAN k 0", "*2 $17 *2 $f $a", "*2 $17 *2 $f $#");
    let entries = each(tuple(&[Shape::Other, pairs(Shape::Field, Shape::Value)]));
    masked(
        &entries,
        "XRANGE k - +",
        "*2 *2 $1-1 *2 $f $a *2 $1-2 *-1",
        "*2 *2 $1-1 *2 $f $# *2 $1-2 *-1",
    );
    masked(&each(Shape::Field), "HKEYS k", "*2 $a $b", "*2 $a $b");
    masked(&Shape::Value, "?", "*2 !7 ERR^abc -ABC^abc", "*2 -ERR^T -ERR^T");
}

#[test]
fn fields_that_arguments_name() {
    let masks = [mask(constant(), &["ssn", "b?"])];
    let keys: &[(&str, &[ValueMask])] = &[("k", &masks)];
    let get = |args| job(&Shape::OfField(2), args, keys);
    check(&get("HGET k ssn"), "$a", "$#");
    check(&get("HGET k name"), "$a", "$a");
    check(&get("HGET k"), "$a", "$#");
    let many = job(&Shape::ByField(2), "HMGET k name ssn bx", keys);
    check(&many, "*3 $a $b $c", "*3 $a $# $#");
    check(&many, "*4 $a $b $-1 $d", "*4 $a $# $-1 $#");
    check(&many, "$a", "$#");
    let table = Table::builtin();
    let hvals: &[&[u8]] = &[b"HVALS", b"k"];
    let Found::Command(command) = table.find(hvals) else { panic!() };
    check(&job(&command.shape(hvals), "HVALS k", keys), "*2 $a $b", "*2 $# $#");
    let string = job(&Shape::Value, "GET k", keys);
    check(&string, "$a", "$a");
    let fields = tuple(&[Shape::Field, Shape::Value, Shape::Value]);
    check(&job(&fields, "?", keys), "*3 $name $a $b", "*3 $name $a $#");
    check(&job(&fields, "?", keys), "*3 $name *2 $a $b $c", "*3 $name *2 $a $b $#");
    check(&job(&fields, "?", keys), "*3 $-1 $a $b", "*3 $-1 $# $#");
    check(&job(&fields, "?", keys), "*3 *1 $x $a $b", "*3 *1 $# $# $#");
}

#[test]
fn a_name_of_a_field_that_cannot_be_compared_is_any() {
    let masks = [mask(constant(), &["ssn"])];
    let all = Owed::One(job(&pairs(Shape::Field, Shape::Value), "HGETALL k", &[("k", &masks)]));
    for name in [b"\xff".to_vec(), vec![b'x'; NAME_BYTES_MAX + 1]] {
        let head = [format!("%1\r\n${}\r\n", name.len()).as_bytes(), &name].concat();
        let reply = [&head, &b"\r\n$1\r\na\r\n"[..]].concat();
        let shown = [&head, &b"\r\n$1\r\n#\r\n"[..]].concat();
        for piece in [7, usize::MAX] {
            assert_eq!(feed(&all, Protocol::Resp3, &reply, piece).unwrap(), shown);
        }
    }
}

#[test]
fn keys_and_their_masks() {
    let (one, other) = ([mask(constant(), &[])], [mask(MaskFn::Constant("+".into()), &[])]);
    let keys: &[(&str, &[ValueMask])] = &[("a", &one), ("b", &[]), ("c", &other)];
    let many = job(&Shape::ByKey, "MGET a b c", keys);
    check(&many, "*3 $x $y $z", "*3 $# $y $+");
    // Beyond the keys, and where no key is told, the strongest of all holds.
    check(&many, "*4 $-1 $y $z $z", "*4 $-1 $y $+ $+");
    check(&many, "$x", "$+");
    let read = pairs(Shape::Key, each(tuple(&[Shape::Other, pairs(Shape::Field, Shape::Value)])));
    let read = job(&read, "XREAD STREAMS a b c 0 0 0", keys);
    let entries = "*1 *2 $1-1 *2 $f $v";
    let [hash, plain, plus] =
        ["#", "v", "+"].map(|shown| entries.replace("$v", &format!("${shown}")));
    check(
        &read,
        &format!("*3 *2 $a {entries} *2 $b {entries} *2 $c {entries}"),
        &format!("*3 *2 $a {hash} *2 $b {plain} *2 $c {plus}"),
    );
    check(
        &read,
        &format!("%3 $b {entries} $unknown {entries} $a {entries}"),
        &format!("%3 $b {plain} $unknown {plus} $a {hash}"),
    );
    let pop = job(&tuple(&[Shape::Key, Shape::Value]), "BLPOP a b c 0", keys);
    check(&pop, "*2 $b $x", "*2 $b $x");
    check(&pop, "*2 $a $x", "*2 $a $#");
    check(&pop, "*2 +c $x", "*2 +c $+");
    check(&pop, "*2 $-1 $x", "*2 $-1 $+");
    check(&pop, "*2 *1 $b $x", "*2 *1 $+ $+");
    let twice: &[(&str, &[ValueMask])] = &[("a", &one), ("a", &[])];
    check(&job(&tuple(&[Shape::Key, Shape::Value]), "?", twice), "*2 $a $x", "*2 $a $#");
}

#[test]
fn a_prefix_is_taken_off_names() {
    let strip = |shape: &Shape| job(shape, "?", &[]).strip(b"t1:"[..].into());
    let scan = strip(&tuple(&[Shape::Other, each(Shape::Key)]));
    check(&scan, "*2 $0 *3 $t1:a $t1:t1:b $t2:a", "*2 $0 *3 $a $t1:b _");
    check(&scan, "*2 $0 *2 *1 $t1:a $t1:", "*2 $0 *2 *1 _ $");
    check(&scan, "*2 $0 *2 #t =7 txt:t1:", "*2 $0 *2 _ $");
    check(&scan, "-NOGROUP^No^such^key^'t1:a'", "-NOGROUP^No^such^key^'a'");
    check(&strip(&Shape::Other), "-ERR^t1:t1:", "-ERR^");
    let invalidate = strip(&tuple(&[Shape::Other, each(Shape::Key)]));
    check(&invalidate, ">2 $invalidate *2 $t1:a $t1:b", ">2 $invalidate *2 $a $b");
    check(&invalidate, ">2 $invalidate _", ">2 $invalidate _");
    // What is no name, beside what is, stays.
    check(&strip(&tuple(&[Shape::Key, Shape::Value])), "*2 $t1:a $t1:b", "*2 $a $t1:b");
    let masks = [mask(constant(), &[])];
    let pop = job(
        &tuple(&[Shape::Key, Shape::Value]),
        "BLPOP t1:a t1:b 0",
        &[("t1:a", &masks), ("t1:b", &[])],
    );
    let pop = pop.strip(b"t1:"[..].into());
    check(&pop, "*2 $t1:a $x", "*2 $a $#");
    check(&pop, "*2 $t1:b $x", "*2 $b $x");
}

#[test]
fn masks_of_one_value() {
    let email = at("$.email", mask(MaskFn::PartialEmail { keep_domain: false }, &[]));
    let gone = at("$.email", mask(MaskFn::Nullify, &["none"]));
    let every = at("$.*", mask(MaskFn::Partial { prefix: 0, suffix: 1, fill: '*' }, &[]));
    let of = |masks: &[&ValueMask]| {
        let masks: Vec<_> = masks.iter().map(|mask| (*mask).clone()).collect();
        job(&Shape::Value, "GET k", &[("k", &masks)])
    };
    let json = r#"${"email":"ada@example.com","n":"abc"}"#;
    check(&of(&[&email]), json, r#"${"email":"a***@***.com","n":"abc"}"#);
    check(&of(&[&email, &gone]), json, r#"${"email":"a***@***.com","n":"abc"}"#);
    let gone = ValueMask { fields: None, ..gone };
    check(&of(&[&gone, &email]), json, r#"${"email":null,"n":"abc"}"#);
    // Of two that meet in one place the stronger one comes last.
    check(&of(&[&email, &every]), json, r#"${"email":"***************","n":"**c"}"#);
    check(&of(&[&email]), "$no^json", "$****");
    check(
        &of(&[&email, &mask(MaskFn::TruncateDate(crate::obligation::DateUnit::Day), &[])]),
        json,
        "$****",
    );
    check(&of(&[&mask(constant(), &[]), &mask(MaskFn::Nullify, &[])]), json, "_");
    let resp2 = feed(&Owed::One(of(&[&mask(MaskFn::Nullify, &[])])), Protocol::Resp2, b"+a\r\n", 1);
    assert_eq!(resp2.unwrap(), b"$-1\r\n");
}

#[test]
fn a_person_has_one_token_in_every_store() {
    let token = Token::new(Token::LENGTH, "p_").unwrap();
    let masked =
        ValueMask { class: Some("EMAIL".into()), ..mask(MaskFn::TokenHmac(token.clone()), &[]) };
    let get = Owed::One(job(&Shape::Value, "GET k", &[("k", &[masked])]));
    let shown = feed(&get, Protocol::Resp2, b"$5\r\na@b.c\r\n", 3).unwrap();
    let masker = Masker::with_key(&MaskKey::new(1, vec![7; 32].into()).unwrap());
    let domain = crate::mask::Domain::of(Some("EMAIL"), &RuleId("another rule".into()));
    let mut expected = Vec::new();
    let _ = masker.apply(&MaskFn::TokenHmac(token), &domain, b"a@b.c", &mut expected);
    let text = String::from_utf8(expected).unwrap();
    assert_eq!(shown, wire(&format!("${text}")));
}

#[test]
fn errors_of_scripts_are_withheld() {
    let eval = job(&Shape::Value, "EVALSHA x 0", &[]).errors(Errors::Scrubbed);
    check(&eval, "-ERR^4111111111111111", "-ERR^T");
    check(&eval, "-NOSCRIPT^4111", "-NOSCRIPT^T");
    check(&eval, "-4111111111111111", "-ERR^T");
    check(&eval, "!9 4111^4111", "-ERR^T");
    check(&eval, "$value", "$value");
    let table = Table::builtin();
    for (line, errors) in [
        (&[&b"evalsha"[..], b"x", b"0"][..], Errors::Scrubbed),
        (&[b"FCALL_RO", b"x", b"0"], Errors::Scrubbed),
        (&[b"get", b"k"], Errors::Passed),
    ] {
        let Found::Command(command) = table.find(line) else { panic!() };
        assert_eq!(Errors::of(&command.fact), errors);
    }
}

#[test]
fn a_transaction_owes_what_its_commands_owe() {
    let masks = [mask(constant(), &[])];
    let get = job(&Shape::Value, "GET k", &[("k", &masks)]);
    let script = job(&Shape::Value, "EVALSHA x 0", &[]).errors(Errors::Scrubbed);
    let exec = Owed::Exec(vec![None, Some(get), Some(script)]);
    check_owed(&exec, "*3 +OK $secret $x", "*3 +OK $# $x");
    check_owed(&exec, "*3 *1 $a *1 $b -ABC^x", "*3 *1 $a *1 $# -ERR^T");
    check_owed(&exec, "*3 -ERR^no -WRONGTYPE^no $-1", "*3 -ERR^no -WRONGTYPE^no $-1");
    check_owed(&exec, "*-1", "*-1");
    check_owed(&exec, "_", "_");
    check_owed(&exec, "-EXECABORT^Transaction^discarded", "-EXECABORT^Transaction^discarded");
    // Which command an element answers is not known: all of them are masked.
    check_owed(&exec, "*4 $a $b $c $d", "*4 $# $# $# $#");
    check_owed(&exec, "$a", "$#");
}

#[test]
fn attributes_stay_where_nothing_is_masked() {
    let masks = [mask(constant(), &[])];
    let two = job(&tuple(&[Shape::Other, Shape::Value]), "?", &[("k", &masks)]);
    let reply = "*2 |1 +ttl |1 +x +y *1 +1 $a |1 +secret *2 +a +b $b";
    check(&two, reply, "*2 |1 +ttl |1 +x +y *1 +1 $a $#");
    let pushed = Owed::One(two);
    assert_eq!(feed(&pushed, Protocol::Resp3, b">1\r\n|1\r\n", 1), Err(Malformed::Misplaced));
}

#[test]
fn long_values_are_passed_in_pieces_or_hidden() {
    let masks = [mask(MaskFn::HashKeyed, &["ssn"]), mask(constant(), &["fix"])];
    let all = Owed::One(job(&pairs(Shape::Field, Shape::Value), "HGETALL k", &[("k", &masks)]));
    let masker = Masker::default();
    let with = With { masker: &masker, protocol: Protocol::Resp2 };
    let feed = |field: &str, len: usize| {
        let mut reshaper = Reshaper::default();
        let head = format!("*2\r\n${}\r\n{field}\r\n${len}\r\n", field.len());
        let (mut input, mut out) = (BytesMut::from(head.as_str()), ByteQueue::default());
        let (mut left, mut held) = (len, 0);
        loop {
            let step = reshaper.feed(&all, with, &mut input, &mut out).unwrap();
            held = held.max(reshaper.held.capacity() + input.len());
            if step == Step::Done {
                break;
            }
            let piece = left.min(100_000);
            left -= piece;
            input.extend_from_slice(&vec![b'v'; piece]);
            if piece == 0 {
                input.extend_from_slice(b"\r\n");
            }
        }
        (out.len(), held, reshaper.too_long())
    };
    let long = HELD_BYTES_MAX + 1;
    let head = "*2\r\n$3\r\nssn\r\n".len();
    assert_eq!(feed("any", long), (head + long + "$16777217\r\n\r\n".len(), 0, 0));
    assert_eq!(feed("fix", long), (head + "$1\r\n#\r\n".len(), 0, 0));
    assert_eq!(feed("ssn", long), (head + "$4\r\n****\r\n".len(), 0, 1));
    let (shown, held, too_long) = feed("ssn", 1_000_000);
    // Without a key there is no digest.
    assert_eq!((shown, too_long), (head + "$4\r\n****\r\n".len(), 0));
    assert!((1_000_000..2_500_000).contains(&held), "{held}");
}

#[test]
fn what_no_server_sends_is_an_error() {
    let any = Owed::One(job(&Shape::Value, "GET k", &[("k", &[mask(constant(), &[])])]));
    let cases: [(&[u8], Malformed); 7] = [
        (b"hello\r\n", Malformed::Type(b'h')),
        (b"$1\r\nab\r\n", Malformed::LineEnd),
        (b"*1\r\n>1\r\n", Malformed::Misplaced),
        (b"$01\r\n", Malformed::Length),
        (b"%-1\r\n", Malformed::Length),
        (&b"*1\r\n".repeat(1000), Malformed::TooDeep),
        (&b"|1\r\n".repeat(1000), Malformed::TooDeep),
    ];
    for (data, malformed) in cases {
        for piece in [1, 3, usize::MAX] {
            assert_eq!(feed(&any, Protocol::Resp3, data, piece), Err(malformed));
        }
    }
}
