//! Lists in messages, cut to a length that one can read.

use std::fmt::Display;

/// Maximum number of items in a list.
const MAX_ITEMS: usize = 20;

/// Joins items with commas: the first 20, and the number of further ones.
pub(crate) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut items = items.into_iter();
    let first: Vec<_> = items.by_ref().take(MAX_ITEMS).map(|i| i.to_string()).collect();
    let text = first.join(", ");
    match items.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_with_a_count() {
        assert_eq!(list([0; 0]), "");
        assert_eq!(list([1, 2]), "1, 2");
        assert!(list(0..20).ends_with("18, 19"));
        assert!(list(0..1000).ends_with("18, 19 and 980 more"));
    }
}
