//! Records that a member leaves to its group.

use ailurus::TopicPartition;

/// Maximum number of partitions that a line names.
const NAMED: usize = 5;

/// Records of a partition that were not printed.
#[derive(Debug)]
pub struct Left {
    pub partition: TopicPartition,
    pub records: i64,
    /// The first of them.
    pub from: i64,
}

/// Describes what was left, in one line: the first partitions, unless `all` are wanted, and how much there is in the others.
pub fn describe(left: &[Left], all: bool) -> String {
    let named = if all { left.len() } else { NAMED };
    let one = |l: &Left| format!("{}: {} from offset {} on", l.partition, l.records, l.from);
    let text = left.iter().take(named).map(one).collect::<Vec<_>>().join("; ");
    match left.get(named..) {
        None | Some([]) => text,
        Some(others) => {
            let records: i64 = left.iter().map(|l| l.records).sum();
            format!("{text}; and {} more: {records} records in {} partitions", others.len(), left.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_partitions_are_counted() {
        let left = |n| (0..n).map(|p| Left { partition: TopicPartition::new("t", p), records: 3, from: 2 });
        let left = |n| left(n).collect::<Vec<_>>();
        assert_eq!(describe(&left(1), false), "t/0: 3 from offset 2 on");
        assert_eq!(describe(&left(5), false).matches(" on").count(), 5);
        let text = describe(&left(1000), false);
        assert!(text.ends_with("t/4: 3 from offset 2 on; and 995 more: 3000 records in 1000 partitions"), "{text}");
        assert!(text.len() < 250, "{text}");
        assert_eq!(describe(&left(1000), true).matches(" on").count(), 1000);
    }
}
