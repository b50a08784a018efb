//! The name that a person may have meant.

/// The known name nearest to `given` by edits, where it is near enough to be meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let edits_max = (given.chars().count() / 3).max(1);
    let scored = known.into_iter().map(|name| (edits(given, name), name));
    scored.filter(|(edits, _)| *edits <= edits_max).min().map(|(_, name)| name)
}

/// Letters to insert, delete or replace to get from one to the other (Levenshtein's distance).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[test]
fn only_what_is_near_is_offered() {
    let check = |given: &str, expected: Option<&str>| {
        assert_eq!(nearest(given, ["smollm2:135m", "llama3.2:1b", "list"]), expected, "{given}");
    };
    check("smolm2:135m", Some("smollm2:135m"));
    check("smollm2-135m", Some("smollm2:135m"));
    check("lst", Some("list"));
    check("gemma3", None);
    check("", None);
}
