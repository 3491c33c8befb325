//! `truncate_date` of dates and times written as text.

use std::io::Write as _;

use super::digits;
use crate::obligation::DateUnit;

/// Truncates `2024-05-17`, `2024-05-17 12:30:00.5`, `2024-05-17T12:30Z`. `None` if the text is no
/// such date. A time with an offset other than zero is none either: its day in UTC is another.
pub(super) fn truncate(value: &str, unit: DateUnit, out: &mut Vec<u8>) -> Option<()> {
    let (date, rest) = value.split_at_checked(DATE_BYTES)?;
    let (year, month) = day(date)?;
    let time = match rest.chars().next() {
        None => None,
        Some(separator @ (' ' | 'T' | 't')) => Some((separator, zone(rest.get(1..)?)?)),
        Some(_) => return None,
    };
    let (month, keeps_day) = match unit {
        DateUnit::Day => (month, true),
        DateUnit::Month => (month, false),
        DateUnit::Quarter => (month.saturating_sub(1) / 3 * 3 + 1, false),
        DateUnit::Year => (1, false),
    };
    if keeps_day {
        out.extend_from_slice(date.as_bytes());
    } else {
        write!(out, "{year:04}-{month:02}-01").ok()?;
    }
    if let Some((separator, zone)) = time {
        write!(out, "{separator}00:00:00{zone}").ok()?;
    }
    Some(())
}

/// Length of `2024-05-17`.
const DATE_BYTES: usize = 10;

/// Year and month of a day of the calendar.
fn day(date: &str) -> Option<(u16, u8)> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return None;
    }
    let year: u16 = digits(year)?.parse().ok()?;
    let month: u8 = digits(month)?.parse().ok()?;
    let day: u8 = digits(day)?.parse().ok()?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    (year > 0 && (1..=last).contains(&day)).then_some((year, month))
}

/// What follows a time of day that is one: nothing, or a zone that is UTC.
fn zone(time: &str) -> Option<&str> {
    let end = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at_checked(end)?;
    if !matches!(zone, "" | "Z" | "z" | "+00" | "+0000" | "+00:00") {
        return None;
    }
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':');
    for most in [23, 59, 59] {
        let Some(part) = parts.next() else { break };
        let value: u8 = digits(part)?.parse().ok()?;
        (part.len() == 2 && value <= most).then_some(())?;
    }
    let hours_only = !time.contains(':');
    (parts.next().is_none() && !hours_only && digits(fraction).is_some()).then_some(zone)
}
