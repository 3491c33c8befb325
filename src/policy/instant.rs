//! Points in time as people write them: a day, or a day and a time, in UTC.

/// Reads `2027-01-31` (to the end of that day) or `2027-01-31T17:00:00Z` as microseconds since the
/// Unix epoch. `None` for anything else, other zones included: an offset is easily misread.
pub(crate) fn instant_us(text: &str) -> Option<u64> {
    let (day, time) = match text.split_once('T') {
        Some((day, time)) => (day, Some(time.strip_suffix('Z')?)),
        None => (text, None),
    };
    let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if !(1970..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let days = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<u64>()
        + lengths.iter().zip(1..month).map(|(length, _)| length).sum::<u64>()
        + (day - 1);
    let seconds = match time {
        None => 24 * 60 * 60,
        Some(time) => {
            let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
            if hour > 23 || minute > 59 || second > 59 {
                return None;
            }
            (hour * 60 + minute) * 60 + second
        }
    };
    Some((days * 24 * 60 * 60 + seconds) * 1_000_000)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Three numbers of these many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_are_read_exactly() {
        let seconds = |text| instant_us(text).map(|us| us / 1_000_000);
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("1970-01-01"), Some(86_400));
        assert_eq!(seconds("2000-03-01T00:00:01Z"), Some(951_868_801));
        assert_eq!(seconds("2026-11-25T04:00:00Z"), Some(1_795_579_200));
        assert_eq!(seconds("2024-02-29T23:59:59Z"), Some(1_709_251_199));
        for wrong in [
            "",
            "2026",
            "2026-1-1",
            "2026-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "2026-01-32",
            "1969-12-31",
            "2026-01-01T",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+02:00",
            "2026-01-01 00:00:00Z",
            "+026-01-01",
        ] {
            assert_eq!(instant_us(wrong), None, "{wrong}");
        }
    }
}
