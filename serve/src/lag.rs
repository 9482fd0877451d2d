//! The lag of groups over time, and its chart on the page.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ailurus::Client;
use maud::{Markup, html};
use tokio::time::Instant;

use crate::page::{count, duration};

/// Number of points of a group: at [`INTERVAL`] those of 10 minutes.
const POINTS: usize = 120;
/// Maximum number of groups; of more, those with the first names have charts.
const MAX_GROUPS: usize = 200;
/// Time between two points of [`LagHistory::of_client`].
const INTERVAL: Duration = Duration::from_secs(5);

/// Width and height of a chart in its own units.
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 36.0;

/// Lag of groups over time: the last 120 points of each of up to 200 groups, in memory.
#[derive(Debug, Default)]
pub struct LagHistory {
    groups: Mutex<BTreeMap<String, VecDeque<Point>>>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at: Instant,
    lag: i64,
}

impl LagHistory {
    /// Returns a history that a task of the current tokio runtime feeds every 5 seconds with the lag of all groups that this
    /// client is a member of, without requests. The task ends with the history. Outside of a runtime there is no task, and
    /// the history stays empty.
    pub fn of_client(client: &Client) -> Arc<Self> {
        let history = Arc::<Self>::default();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(sample(Arc::downgrade(&history), client.clone()));
        }
        history
    }

    /// Adds a point to each group. A group that is not among them is removed: it is gone.
    pub fn record(&self, at: Instant, lags: impl IntoIterator<Item = (String, i64)>) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *groups);
        for (group, lag) in lags {
            if groups.len() >= MAX_GROUPS && !groups.contains_key(&group) {
                continue;
            }
            let earlier = before.remove(&group).unwrap_or_default();
            let points = groups.entry(group).or_insert(earlier);
            // Two subscriptions of one group, at the same time: the group's lag is their sum.
            match points.back_mut().filter(|last| last.at == at) {
                Some(last) => last.lag += lag,
                None => points.push_back(Point { at, lag }),
            }
            if points.len() > POINTS {
                points.pop_front();
            }
        }
    }

    /// Returns the chart of a group; nothing before its second point.
    pub(crate) fn chart(&self, group: &str, now: Instant) -> Markup {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let points: Vec<Point> = groups.get(group).into_iter().flatten().copied().collect();
        drop(groups);
        chart(&points, now)
    }
}

async fn sample(history: Weak<LagHistory>, client: Client) {
    while let Some(history) = history.upgrade() {
        history.record(Instant::now(), client.subscriptions().into_iter().map(|s| (s.group, s.lag)));
        drop(history);
        tokio::time::sleep(INTERVAL).await;
    }
}

fn chart(points: &[Point], now: Instant) -> Markup {
    let [first, .., last] = points else { return html! {} };
    let most = points.iter().map(|p| p.lag).max().unwrap_or_default();
    let span = last.at.duration_since(first.at).as_secs_f64().max(f64::MIN_POSITIVE);
    let mut line = String::new();
    for p in points {
        let x = WIDTH * p.at.duration_since(first.at).as_secs_f64() / span;
        // A lag of 0 is drawn above the lower edge, which would cut half of the line off.
        let y = (HEIGHT - 2.0) * (1.0 - p.lag as f64 / most.max(1) as f64) + 1.0;
        let _ = write!(line, "{x:.1},{y:.1} ");
    }
    let line = line.trim_end();
    let long = duration(now.saturating_duration_since(first.at));
    let words =
        format!("Lag of the last {long}: from {} to {}, at most {}", count(first.lag), count(last.lag), count(most));
    html! {
        figure.chart {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(words) {
                polygon points=(format!("0,{HEIGHT} {line} {WIDTH},{HEIGHT}")) {}
                polyline points=(line) vector-effect="non-scaling-stroke" {}
            }
            figcaption { "Lag of the last " (long) ", at most " (count(most)) }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn history(seconds: u64, lags: impl Fn(u64) -> i64) -> (LagHistory, Instant) {
        let (history, start) = (LagHistory::default(), Instant::now());
        for s in 0..seconds {
            history.record(start + Duration::from_secs(s), [("g".to_owned(), lags(s))]);
        }
        (history, start + Duration::from_secs(seconds - 1))
    }

    #[test]
    fn a_chart_goes_from_the_first_point_to_the_last() {
        let (history, now) = history(3, |s| [0, 5000, 2500][s as usize]);
        let html = history.chart("g", now).into_string();
        assert!(html.contains(r#"<polyline points="0.0,35.0 120.0,1.0 240.0,18.0""#), "{html}");
        assert!(html.contains("Lag of the last 2 s: from 0 to 2,500, at most 5,000"), "{html}");
    }

    #[test]
    fn one_point_or_an_unknown_group_has_no_chart() {
        let (history, now) = history(1, |_| 7);
        assert_eq!(history.chart("g", now).into_string(), "");
        assert_eq!(history.chart("other", now).into_string(), "");
    }

    #[test]
    fn a_group_without_lag_is_a_line_at_the_bottom() {
        let (history, now) = history(2, |_| 0);
        assert!(history.chart("g", now).into_string().contains(r#"points="0.0,35.0 240.0,35.0""#));
    }

    #[test]
    fn points_and_groups_are_bounded_and_gone_groups_removed() {
        let (history, at) = history(1000, |_| 1);
        assert_eq!(history.groups.lock().unwrap().get("g").map(VecDeque::len), Some(POINTS));
        let later = at + Duration::from_secs(1);
        history.record(later, (0..1000).map(|n| (format!("g{n:04}"), n)));
        let groups = history.groups.lock().unwrap();
        assert_eq!(groups.len(), MAX_GROUPS);
        assert!(!groups.contains_key("g"));
    }

    #[test]
    fn subscriptions_of_one_group_are_added_up() {
        let (history, at) = (LagHistory::default(), Instant::now());
        history.record(at, [("g".to_owned(), 3), ("g".to_owned(), 4)]);
        assert_eq!(history.groups.lock().unwrap()["g"].back().map(|p| p.lag), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_of_a_client_ends_with_the_history() {
        let client = Client::new(ailurus::Config::default());
        let history = LagHistory::of_client(&client);
        let weak = Arc::downgrade(&history);
        tokio::time::sleep(INTERVAL * 3).await;
        drop(history);
        tokio::time::sleep(INTERVAL * 2).await;
        assert_eq!(weak.strong_count(), 0);
        assert_eq!(weak.weak_count(), 0, "the task has the other one");
    }
}
