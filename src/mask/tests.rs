use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::obligation::{Alphabet, DateUnit, Token};

fn domain() -> Domain {
    Domain::of(Some("EMAIL_ADDRESS"), &RuleId("r".into()))
}

fn masker() -> Masker {
    keyed(1, 7)
}

fn keyed(id: u16, byte: u8) -> Masker {
    Masker::with_key(&MaskKey::new(id, Zeroizing::new(vec![byte; 32])).unwrap())
}

fn apply(function: &MaskFn, value: &[u8]) -> Option<String> {
    let mut out = b"before".to_vec();
    let masked = masker().apply(function, &domain(), value, &mut out);
    let text = String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned();
    match masked {
        Masked::Value => Some(text),
        Masked::Null => {
            assert_eq!(text, "");
            None
        }
    }
}

fn check(function: &MaskFn, cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        let masked = apply(function, value.as_bytes());
        assert_eq!(masked.as_deref(), Some(*expected), "{function:?} {value:?}");
    }
}

fn partial(prefix: u32, suffix: u32) -> MaskFn {
    MaskFn::Partial { prefix, suffix, fill: '*' }
}

#[test]
fn texts() {
    check(
        &partial(1, 1),
        &[
            ("", ""),
            ("a", "*"),
            ("ab", "**"),
            ("abc", "a*c"),
            ("ä😀ö", "ä*ö"),
            ("e\u{301}xy", "e**y"),
        ],
    );
    check(&partial(u32::MAX, u32::MAX), &[("abc", "***")]);
    let email = |keep_domain| MaskFn::PartialEmail { keep_domain };
    check(
        &email(false),
        &[
            ("maria@example.com", "m***@***.com"),
            ("a@b.com", "***@***.com"),
            ("maria@a.b.org", "m***@***.org"),
            ("maria", "*****"),
            ("a b@c.de", "********"),
            ("a@b@c.de", "********"),
            ("a@b.", "****"),
            ("@b.de", "*****"),
            ("", ""),
        ],
    );
    check(&email(true), &[("maria@example.com", "m***@example.com")]);
    check(
        &MaskFn::PanBinLast4 { bin: 6 },
        &[
            ("4111 1111 1111 1234", "4111 11** **** 1234"),
            ("name 4111111111111234", "**** 411111******1234"),
            ("123456789012", "************"),
        ],
    );
}

#[test]
fn numbers_and_dates() {
    let bucket = MaskFn::Bucket { width: 10, offset: 3 };
    check(
        &bucket,
        &[
            ("12", "3"),
            ("13", "13"),
            ("-1", "-7"),
            ("-7.0", "-7"),
            ("-7.1", "-17"),
            ("12.999", "3"),
            ("", "****"),
            ("1e5", "****"),
            ("0x10", "****"),
            ("nan", "****"),
            ("1 ", "****"),
            ("9999999999999999999999999999999", "****"),
        ],
    );
    check(&MaskFn::Bucket { width: 0, offset: 0 }, &[("12", "****")]);
    for (unit, expected) in [
        (DateUnit::Day, "2024-08-17"),
        (DateUnit::Month, "2024-08-01"),
        (DateUnit::Quarter, "2024-07-01"),
        (DateUnit::Year, "2024-01-01"),
    ] {
        check(&MaskFn::TruncateDate(unit), &[("2024-08-17", expected)]);
    }
    check(
        &MaskFn::TruncateDate(DateUnit::Month),
        &[
            ("2024-02-29 12:30:01.5", "2024-02-01 00:00:00"),
            ("2024-02-29T12:30Z", "2024-02-01T00:00:00Z"),
            ("2024-02-29 12:30:00+00", "2024-02-01 00:00:00+00"),
            ("2024-02-29 12:30:00+02", "****"),
            ("2023-02-29", "****"),
            ("2024-02-29 24:00", "****"),
            ("2024-02-29 12", "****"),
            ("2024-02-29 secret", "****"),
            ("1700000000", "****"),
            ("+024-02-01", "****"),
        ],
    );
}

#[test]
fn what_is_no_text_is_never_shown() {
    let value = b"maria\xff@example.com";
    for function in functions() {
        let masked = apply(&function, value);
        match function {
            MaskFn::Nullify => assert_eq!(masked, None),
            MaskFn::Constant(constant) => assert_eq!(masked.as_deref(), Some(&*constant)),
            MaskFn::HashKeyed | MaskFn::TokenHmac(_) | MaskFn::FpeFf1(_) => {
                assert!(!masked.unwrap().contains("maria"));
            }
            MaskFn::TruncateDate(_)
            | MaskFn::Bucket { .. }
            | MaskFn::Partial { .. }
            | MaskFn::PartialEmail { .. }
            | MaskFn::PanBinLast4 { .. } => assert_eq!(masked.as_deref(), Some("****")),
        }
    }
}

#[test]
fn without_a_key_keyed_masks_hide() {
    for function in functions().into_iter().filter(MaskFn::needs_key) {
        assert!(Masker::default().can(&function).is_err());
        assert!(masker().can(&function).is_ok());
        let mut out = Vec::new();
        let _ = Masker::default().apply(&function, &domain(), b"4111111111111111", &mut out);
        assert_eq!(out, HIDDEN);
    }
}

#[test]
fn tokens_are_equal_within_a_domain_and_a_key() {
    let token = MaskFn::TokenHmac(Token::new(20, "p_").unwrap());
    let of = |masker: &Masker, class: Option<&str>, rule: &str| {
        let mut out = Vec::new();
        let domain = Domain::of(class, &RuleId(rule.into()));
        let _ = masker.apply(&token, &domain, b"a@b.com", &mut out);
        String::from_utf8(out).unwrap()
    };
    let first = of(&masker(), Some("EMAIL"), "one");
    assert_eq!(first, of(&masker(), Some("EMAIL"), "other"));
    assert!(first.starts_with("p_t1_") && first.len() == 25, "{first}");
    let others = [
        of(&masker(), Some("NAME"), "one"),
        of(&masker(), None, "EMAIL"),
        of(&masker(), None, "one"),
        of(&keyed(1, 8), Some("EMAIL"), "one"),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(first, *other);
        assert!(others.iter().skip(at + 1).all(|next| next != other));
    }
    assert!(of(&keyed(12, 7), None, "one").starts_with("p_t12_"));
}

#[test]
fn encryption_keeps_the_form_or_becomes_a_token() {
    let digits = MaskFn::FpeFf1(Alphabet::Digits);
    let masked = apply(&digits, b"4111-1111-1111-1111").unwrap();
    let form: String = masked.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(form, "9999-9999-9999-9999");
    assert_ne!(masked, "4111-1111-1111-1111");
    let long = "1".repeat(65);
    for value in ["", "12345", "DE89370400440532", "maria 4111111111111111", &long] {
        let masked = apply(&digits, value.as_bytes()).unwrap();
        assert!(masked.starts_with("t1_") && masked.len() == 29, "{value} {masked}");
    }
}

#[test]
fn short_keys_are_none() {
    for (id, length) in [(0, 32), (1, 0), (1, 31), (1, 4_097)] {
        assert!(MaskKey::new(id, Zeroizing::new(vec![1; length])).is_err(), "{id} {length}");
    }
}

// === JSON ===

fn at(path: &str, function: &MaskFn, text: &[u8]) -> String {
    let mut out = Vec::new();
    let path = JsonPath::parse(path).unwrap();
    let domain = domain();
    let mask = Mask { function, domain: &domain };
    assert_eq!(masker().apply_at(&path, mask, text, &mut out), Masked::Value);
    String::from_utf8(out).unwrap()
}

#[test]
fn leaves_are_masked_and_the_rest_stays() {
    let email = MaskFn::PartialEmail { keep_domain: false };
    for (path, text, expected) in [
        ("$.e", r#" { "e" : "ab@c.de", "n":1.50e3 } "#, r#" { "e" : "a***@***.de", "n":1.50e3 } "#),
        (
            "$.e",
            r#"{"\u0065":"ab@c.de","e":"cd@c.de"}"#,
            r#"{"\u0065":"a***@***.de","e":"c***@***.de"}"#,
        ),
        ("$.e", r#"{"e":"a\u0062@c.de"}"#, r#"{"e":"a***@***.de"}"#),
        (
            "$.i[*].e",
            r#"{"i":[{"e":"ab@c.de"},{"e":null},{}],"e":"x"}"#,
            r#"{"i":[{"e":"a***@***.de"},{"e":null},{}],"e":"x"}"#,
        ),
        ("$[1]", r#"["ab@c.de","ab@c.de","x"]"#, r#"["ab@c.de","a***@***.de","x"]"#),
        (
            "$.*",
            r#"{"a":"ab@c.de","b":[1,{"c":2}],"d":true}"#,
            r#"{"a":"a***@***.de","b":"****","d":"****"}"#,
        ),
        ("$.e", r#"{"x":{"e":"kept"},"f":[]}"#, r#"{"x":{"e":"kept"},"f":[]}"#),
        ("$.e", r#""e""#, r#""e""#),
        ("$.e.f", r#"{"e":"kept"}"#, r#"{"e":"kept"}"#),
    ] {
        assert_eq!(at(path, &email, text.as_bytes()), expected, "{path} {text}");
    }
    let bucket = MaskFn::Bucket { width: 10, offset: 0 };
    let text = br#"{"n":42,"n":"17","n":1e3}"#;
    assert_eq!(at("$.n", &bucket, text), r#"{"n":40,"n":"10","n":"****"}"#);
    assert_eq!(at("$.n", &MaskFn::Nullify, text), r#"{"n":null,"n":null,"n":null}"#);
    let constant = MaskFn::Constant("a\"\\\n".into());
    assert_eq!(at("$.n", &constant, br#"{"n":[1]}"#), r#"{"n":"a\"\\\u000a"}"#);
    let quotes = partial(2, 0);
    assert_eq!(at("$.n", &quotes, br#"{"n":"\"\u00e9xy"}"#), r#"{"n":"\"é**"}"#);
}

#[test]
fn what_is_not_json_is_masked_whole() {
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let long = format!("\"{}\"", "a".repeat(1024 * 1024));
    for text in [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "[1 2]",
        "01",
        "1.",
        "-",
        "+1",
        ".5",
        "1e",
        "nul",
        "nullx",
        "NaN",
        "\"a",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\u+123\"",
        "\"\\ud800\\u0041\"",
        "\"\u{1}\"",
        "[1]]",
        "[1}",
        "{\"a\":1]",
        "1 2",
        "\u{feff}{}",
        "[1]//",
        "{\"e\":\"ab@c.de\"",
        "{\"e\":[\"ab@c.de\"}",
        &deep,
        &long,
    ] {
        assert_eq!(at("$.e", &partial(1, 1), text.as_bytes()), "****", "{text:.40}");
    }
    assert_eq!(at("$.e", &partial(1, 1), b"{\"e\":\"\xff\"}"), "****");
    let deep = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    assert_eq!(at("$.e", &partial(1, 1), deep.as_bytes()), deep);
}

// === properties ===

fn functions() -> Vec<MaskFn> {
    let alphabets = [Alphabet::Digits, Alphabet::LowerAlphanumeric, Alphabet::Alphanumeric];
    let mut functions = vec![
        MaskFn::Nullify,
        MaskFn::Constant("x".into()),
        partial(0, 0),
        partial(2, 1),
        MaskFn::PartialEmail { keep_domain: false },
        MaskFn::PanBinLast4 { bin: 6 },
        MaskFn::Bucket { width: 100, offset: -7 },
        MaskFn::TruncateDate(DateUnit::Month),
        MaskFn::HashKeyed,
        MaskFn::TokenHmac(Token::new(26, "").unwrap()),
    ];
    functions.extend(alphabets.map(MaskFn::FpeFf1));
    functions
}

proptest! {
    /// Of letters that occur in no mask's own words nothing longer than what is kept comes through.
    #[test]
    fn no_four_characters_of_a_value_are_shown(value in "[A-ZÄ-Ü😀 @.]{4,40}") {
        for function in functions() {
            // Four letters of an encrypted value may return by chance.
            if matches!(function, MaskFn::FpeFf1(_)) {
                continue;
            }
            let Some(masked) = apply(&function, value.as_bytes()) else { continue };
            let characters: Vec<char> = value.chars().collect();
            for window in characters.windows(4) {
                let part: String = window.iter().collect();
                // The last label of an address is kept, and spaces and dots of a card number are.
                let label = value.rsplit_once('.').map_or("", |(_, label)| label);
                let kept = matches!(function, MaskFn::PartialEmail { .. })
                    && masked.contains("@***.")
                    && format!(".{label}").contains(&part);
                let separators = part.chars().all(|c| " .".contains(c));
                prop_assert!(kept || separators || !masked.contains(&part), "{function:?} {value:?} {masked:?}");
            }
        }
    }

    #[test]
    fn no_value_panics(value in proptest::collection::vec(any::<u8>(), 0..80)) {
        for function in functions() {
            let _ = apply(&function, &value);
            let _ = at("$.a[*].b", &function, &value);
        }
    }

    /// What masks by truncation or by keeping ends gives the same again.
    #[test]
    fn masking_twice_is_masking_once(value in "[-0-9.]{0,12}|[a-z]{1,8}@[a-z]{1,8}[.][a-z]{2,3}|.{0,20}") {
        for function in [
            partial(2, 1),
            MaskFn::Bucket { width: 10, offset: 3 },
            MaskFn::TruncateDate(DateUnit::Year),
            MaskFn::Constant("x".into()),
        ] {
            let once = apply(&function, value.as_bytes()).unwrap();
            prop_assert_eq!(&once, &apply(&function, once.as_bytes()).unwrap());
        }
    }

    /// The walk and a parser agree on what is JSON, and no leaf on the path keeps its value.
    #[test]
    fn json_is_what_a_parser_takes(text in "([\\[\\]{}:,\"ab \\\\u0159.e-]|\"a\"|\"a\":|null|[{]\"a\":){0,20}") {
        let masked = at("$.a", &MaskFn::Constant("m".into()), text.as_bytes());
        // A parser into numbers refuses those it cannot hold; this one keeps their text.
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&text);
        if parsed.is_ok() {
            let again: serde_json::Value = serde_json::from_str(&masked).unwrap();
            if let Some(leaf) = again.get("a") {
                prop_assert!(leaf.is_null() || leaf == "m", "{text} {masked}");
            }
        } else if masked != "****" {
            prop_assert!(parsed.unwrap_err().to_string().contains("out of range"), "{text} {masked}");
        }
    }
}
