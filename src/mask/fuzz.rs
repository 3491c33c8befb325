//! What must hold for any value, driven by a fuzzer and by a test over the committed corpus.

use super::{Domain, HIDDEN, Mask, MaskKey, Masked, Masker};
use crate::name::RuleId;
use crate::obligation::{Alphabet, DateUnit, JsonPath, MaskFn, Token};

/// Masks a value in every way, plain and as JSON.
///
/// # Panics
/// If bytes that are no text come through, if the same value gives two results, or if JSON comes
/// out as something else.
pub fn fuzz_mask(data: &[u8]) {
    let (Ok(key), Ok(token)) =
        (MaskKey::new(1, vec![7; 32].into()), Token::new(Token::LENGTH, "p_"))
    else {
        return;
    };
    let masker = Masker::with_key(&key);
    let domain = Domain::of(Some("CLASS"), &RuleId("rule".into()));
    let functions = [
        MaskFn::TruncateDate(DateUnit::Quarter),
        MaskFn::Bucket { width: 10, offset: -3 },
        MaskFn::Partial { prefix: 1, suffix: 1, fill: '*' },
        MaskFn::PartialEmail { keep_domain: true },
        MaskFn::PanBinLast4 { bin: 8 },
        MaskFn::FpeFf1(Alphabet::Alphanumeric),
        MaskFn::HashKeyed,
        MaskFn::TokenHmac(token),
        MaskFn::Constant("\"\\".into()),
        MaskFn::Nullify,
    ];
    for function in &functions {
        let of = |value: &[u8]| {
            let mut out = Vec::new();
            let masked = masker.apply(function, &domain, value, &mut out);
            (masked, out)
        };
        let (masked, out) = of(data);
        assert_eq!((masked, &out), (of(data).0, &of(data).1), "{function:?} is a function");
        assert!(std::str::from_utf8(&out).is_ok(), "{function:?} shows bytes that are no text");
        assert_eq!(masked == Masked::Null, *function == MaskFn::Nullify);
        for path in ["$.a", "$[*].b.*", "$.a[1]"] {
            check_json(&masker, path, Mask { function, domain: &domain }, data);
        }
    }
}

fn check_json(masker: &Masker, path: &str, mask: Mask<'_>, data: &[u8]) {
    let Ok(path) = JsonPath::parse(path) else { return };
    let mut out = Vec::new();
    let _ = masker.apply_at(&path, mask, data, &mut out);
    if out != HIDDEN {
        let parsed: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(&out);
        assert!(parsed.is_ok(), "JSON comes out as something else");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/mask");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_mask(&std::fs::read(entry.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen > 5, "the corpus is there");
    }

    proptest! {
        #[test]
        fn random_values_hold(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            fuzz_mask(&data);
        }
    }
}
