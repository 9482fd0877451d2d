//! What a seed decides: who is met by which outage, how, when and for how long.

use std::time::Duration;

use ailurus::GroupProtocol;
use ailurus_broker::Fault;
use fastrand::Rng;

/// Who has to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Member(GroupProtocol),
    Subscription(GroupProtocol),
    Producer,
}

/// What fails. Those without an API are not requests.
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

    /// The requests that it is made of.
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

    /// Codes that a broker may answer for a while.
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

/// All that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub role: Role,
    pub step: Step,
    /// None for what is not a request.
    pub fault: Option<Fault>,
    /// Whether it lasts when the role begins, or begins in the midst of its work.
    pub from_the_start: bool,
    /// Whether the client connects when it is first used, or is made again until it has reached the cluster.
    pub lazy: bool,
    pub lasts: Duration,
    /// Whether all connections are cut when it begins, so that everything is asked again.
    pub cuts: bool,
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
        // Each role and step in turn; the rest by chance.
        let turn = usize::try_from(seed).unwrap();
        let role = roles[turn % roles.len()];
        let steps = Step::of_role(role);
        let step = steps[turn / roles.len() % steps.len()];
        let fault = match (step.codes(), r.u32(0..3)) {
            ([], _) => None,
            // An answer of these that is lost has done its work: the broker waits for a member that never knew.
            (_, 0) => Some(Fault::Close),
            (_, 1) if !matches!(step, Step::JoinGroup | Step::SyncGroup | Step::Login) => Some(Fault::DropResponse),
            (codes, _) => Some(Fault::Error(codes[r.usize(..codes.len())])),
        };
        Self {
            seed,
            role,
            step,
            fault,
            from_the_start: match step {
                // One that is refused at first is final, and says so; the others begin with the first record.
                Step::Login | Step::InitProducerId | Step::Produce => false,
                Step::ListOffsets => true, // later on all positions are known
                _ => r.bool(),
            },
            // The first login of a producer that has nothing to look up is refused for good.
            lazy: r.bool() && (role, step) != (Role::Producer, Step::Login),
            lasts: Duration::from_millis(r.u64(200..1500)),
            cuts: r.bool() || matches!(step, Step::Token | Step::Login | Step::ApiVersions),
        }
    }

    /// As the summary calls it.
    pub fn name(&self) -> String {
        let role = match self.role {
            Role::Member(_) => "member",
            Role::Subscription(_) => "subscription",
            Role::Producer => "producer",
        };
        format!("{role}: {:?}", self.step)
    }
}
