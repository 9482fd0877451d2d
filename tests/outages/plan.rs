//! The plan of a seed: role, failing step, kind and duration of the outage.

use std::time::Duration;

use ailurus::GroupProtocol;
use ailurus_broker::Fault;
use fastrand::Rng;

/// Role that has to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Member(GroupProtocol),
    Subscription(GroupProtocol),
    Producer,
}

/// Step that fails. Steps without an API are not requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Connect,
    Token,
    Login,
    ApiVersions,
    Metadata,
    FindCoordinator,
    JoinGroup,
    SyncGroup,
    Heartbeat,
    OffsetFetch,
    OffsetCommit,
    ListOffsets,
    Fetch,
    InitProducerId,
    Produce,
}

impl Step {
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Token,
        Self::Login,
        Self::ApiVersions,
        Self::Metadata,
        Self::FindCoordinator,
        Self::JoinGroup,
        Self::SyncGroup,
        Self::Heartbeat,
        Self::OffsetFetch,
        Self::OffsetCommit,
        Self::ListOffsets,
        Self::Fetch,
        Self::InitProducerId,
        Self::Produce,
    ];

    /// Returns the requests of the step.
    pub fn apis(self) -> &'static [i16] {
        match self {
            Self::Connect | Self::Token => &[],
            Self::Login => &[36],
            Self::ApiVersions => &[18],
            Self::Metadata => &[3],
            Self::FindCoordinator => &[10],
            Self::JoinGroup => &[11, 68],
            Self::SyncGroup => &[14, 68],
            Self::Heartbeat => &[12, 68],
            Self::OffsetFetch => &[9],
            Self::OffsetCommit => &[8],
            Self::ListOffsets => &[2],
            Self::Fetch => &[1],
            Self::InitProducerId => &[22],
            Self::Produce => &[0],
        }
    }

    /// Returns error codes that a broker may return for a while.
    fn codes(self) -> &'static [i16] {
        match self {
            Self::Connect | Self::Token => &[],
            Self::Login => &[58],
            Self::ApiVersions => &[-1],
            Self::Metadata => &[5, -1],
            Self::FindCoordinator => &[15, 30, -1],
            Self::JoinGroup | Self::SyncGroup | Self::Heartbeat => &[14, 15, 16, 30, 81, -1],
            Self::OffsetFetch => &[14, 16, 30, 88, -1],
            Self::OffsetCommit => &[14, 15, 16, 7, -1],
            Self::ListOffsets | Self::Fetch => &[5, 6, 29, 56, 74, -1],
            Self::InitProducerId => &[14, 15, 16, -1],
            Self::Produce => &[5, 6, 7, 19],
        }
    }

    fn of_role(role: Role) -> Vec<Self> {
        use Step::*;
        let mut steps = vec![Connect, Token, Login, ApiVersions, Metadata];
        match role {
            Role::Producer => steps.extend([InitProducerId, Produce]),
            Role::Member(_) | Role::Subscription(_) => {
                steps.extend([
                    FindCoordinator,
                    JoinGroup,
                    SyncGroup,
                    Heartbeat,
                    OffsetFetch,
                    OffsetCommit,
                    ListOffsets,
                    Fetch,
                ]);
            }
        }
        steps
    }
}

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub role: Role,
    pub step: Step,
    /// Fault of the requests; `None` for other steps.
    pub fault: Option<Fault>,
    /// The outage lasts when the role starts, or starts during its work.
    pub at_start: bool,
    /// The client connects at its first use, or is created again until it has reached the cluster.
    pub lazy: bool,
    pub duration: Duration,
    /// All connections are closed when the outage starts, so that every request is sent again.
    pub disconnects: bool,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        use GroupProtocol::{Classic, Consumer};
        let roles = [
            Role::Member(Classic),
            Role::Member(Consumer),
            Role::Subscription(Classic),
            Role::Subscription(Consumer),
            Role::Producer,
        ];
        let mut r = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // Each role and step in turn; the rest is random.
        let turn = usize::try_from(seed).unwrap();
        let role = roles[turn % roles.len()];
        let steps = Step::of_role(role);
        let step = steps[turn / roles.len() % steps.len()];
        let fault = match (step.codes(), r.u32(0..3)) {
            ([], _) => None,
            // A dropped response of these has changed the group: the broker waits for a member that
            // does not know.
            (_, 0) => Some(Fault::Close),
            (_, 1) if !matches!(step, Step::JoinGroup | Step::SyncGroup | Step::Login) => Some(Fault::DropResponse),
            (codes, _) => Some(Fault::Error(codes[r.usize(..codes.len())])),
        };
        Self {
            seed,
            role,
            step,
            fault,
            at_start: match step {
                // The first of these is final if it is rejected; the others start with the first
                // record.
                Step::Login | Step::InitProducerId | Step::Produce => false,
                Step::ListOffsets => true, // later on all positions are known
                _ => r.bool(),
            },
            // The first login of a producer without metadata requests is final if it is rejected.
            lazy: r.bool() && (role, step) != (Role::Producer, Step::Login),
            duration: Duration::from_millis(r.u64(200..1500)),
            disconnects: r.bool() || matches!(step, Step::Token | Step::Login | Step::ApiVersions),
        }
    }

    /// Returns the name in the summary.
    pub fn name(&self) -> String {
        let role = match self.role {
            Role::Member(_) => "member",
            Role::Subscription(_) => "subscription",
            Role::Producer => "producer",
        };
        format!("{role}: {:?}", self.step)
    }
}
