//! The guard as a service of three replicas uses it, with their counts merged every second.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use otpd_rules::{
    Timestamp,
    guard::{
        Admission, Assessment, Baseline, Cell, GuardPolicy, ProviderEvent, ProviderHealth,
        SendAssessment, SendClass, SequenceTracker, Verdict, admit, assess_block, assess_country,
        release,
    },
};

use crate::world::{COUNTRIES, DAY, EvaluatedGuard, NumberBlock, SECOND, SendReply, SendRequest};

/// Replicas of the service.
pub const REPLICAS: usize = 3;
const PROVIDERS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum CellEvent {
    Send { time: Timestamp, sequential: bool },
    Verification { sent_at: Timestamp, messages: u32 },
}

fn apply(cell: &mut Cell, event: CellEvent) {
    match event {
        CellEvent::Send { time, sequential } => cell.add_send(time, sequential),
        CellEvent::Verification { sent_at, messages } => cell.add_verification(sent_at, messages),
    }
}

/// Counts of a replica that it has not merged yet.
#[derive(Clone, Debug, Default)]
struct ReplicaState {
    blocks: BTreeMap<NumberBlock, Vec<CellEvent>>,
    countries: BTreeMap<usize, Vec<CellEvent>>,
    sequences: HashMap<NumberBlock, SequenceTracker>,
    views: HashMap<usize, CountryView>,
}

/// Assessment of a country by a replica, and the baseline of its blocks. It is the same for 10
/// seconds, unless counts are added.
#[derive(Clone, Debug)]
struct CountryView {
    /// Unit of 10 seconds, number of merges that added counts, and number of unmerged events.
    key: (i64, u64, usize),
    assessment: Assessment,
    of_country: Baseline,
}

/// Slots in which a block last had an event of each kind.
type LastSlots = [i64; 3];

/// The guard.
#[derive(Clone, Debug)]
pub struct GuardedService {
    policy: GuardPolicy,
    /// Messages to a country a day, of all classes.
    daily_budget: Option<u32>,
    caller: Cell,
    countries: Vec<Cell>,
    blocks: HashMap<NumberBlock, Cell>,
    replicas: Vec<ReplicaState>,
    merged_at: i64,
    merges: Vec<u64>,
    providers: Vec<ProviderHealth>,
    slots: HashMap<NumberBlock, LastSlots>,
    budgets: Vec<(i64, u32)>,
}

impl GuardedService {
    /// Returns a guard without counts.
    pub fn new(policy: GuardPolicy, daily_budget: Option<u32>) -> Self {
        Self {
            policy,
            daily_budget,
            caller: Cell::default(),
            countries: vec![Cell::default(); COUNTRIES.len()],
            blocks: HashMap::new(),
            replicas: vec![ReplicaState::default(); REPLICAS],
            merged_at: 0,
            merges: vec![0; COUNTRIES.len()],
            providers: vec![ProviderHealth::default(); PROVIDERS],
            slots: HashMap::new(),
            budgets: vec![(0, 0); COUNTRIES.len()],
        }
    }

    /// Merges the counts of all replicas, once a second.
    fn merge(&mut self, now: Timestamp) {
        let second = now.milliseconds() / SECOND;
        if second == self.merged_at {
            return;
        }
        self.merged_at = second;
        for replica in &mut self.replicas {
            for (block, events) in std::mem::take(&mut replica.blocks) {
                let cell = self.blocks.entry(block).or_default();
                for event in events {
                    apply(cell, event);
                }
            }
            for (country, events) in std::mem::take(&mut replica.countries) {
                self.merges[country] += 1;
                for event in events {
                    apply(&mut self.countries[country], event);
                    apply(&mut self.caller, event);
                }
            }
        }
    }

    fn baseline(&self) -> Baseline {
        self.caller.baseline(Baseline::assumed(&self.policy))
    }

    fn note(&mut self, block: NumberBlock, event: ProviderEvent, now: Timestamp) {
        let kind = match event {
            ProviderEvent::Sent => 0,
            ProviderEvent::Verified => 1,
            ProviderEvent::Refused => 2,
        };
        let slot = ProviderHealth::slot(now);
        let last = &mut self.slots.entry(block).or_insert([-1; 3])[kind];
        if *last != slot {
            *last = slot;
            self.providers[COUNTRIES[block.country].provider].add(event, now);
        }
    }

    /// Returns true while the budget of the country's day has messages left.
    fn has_budget(&mut self, country: usize, now: Timestamp) -> bool {
        let day = now.milliseconds() / DAY;
        let (of_day, spent) = &mut self.budgets[country];
        if *of_day != day {
            (*of_day, *spent) = (day, 0);
        }
        self.daily_budget.is_none_or(|budget| *spent < budget)
    }

    /// Assesses a country as a replica sees it.
    fn view(&mut self, replica: usize, country: usize, now: Timestamp) -> CountryView {
        let caller = self.baseline();
        let replica = &mut self.replicas[replica];
        let unmerged = replica.countries.get(&country);
        let unmerged = unmerged.map_or(&[][..], Vec::as_slice);
        let tens = now.milliseconds() / (10 * SECOND);
        let key = (tens, self.merges[country], unmerged.len());
        if let Some(view) = replica.views.get(&country)
            && view.key == key
        {
            return view.clone();
        }
        let cell = with_events(Cow::Borrowed(&self.countries[country]), unmerged);
        let view = CountryView {
            key,
            assessment: assess_country(&cell, caller, &self.policy, now),
            of_country: cell.baseline(caller),
        };
        replica.views.insert(country, view.clone());
        view
    }

    /// Decides about a request. Returns also whether a message counts for its country.
    fn decide(&mut self, request: &SendRequest, class: SendClass) -> (Admission, bool) {
        let (now, block) = (request.time, request.block);
        let CountryView {
            assessment: country,
            of_country,
            ..
        } = self.view(request.replica, block.country, now);
        let replica = &self.replicas[request.replica];
        let unmerged_block = replica.blocks.get(&block).map_or(&[][..], Vec::as_slice);
        let merged = self
            .blocks
            .get(&block)
            .map_or_else(|| Cow::Owned(Cell::default()), Cow::Borrowed);
        let block_cell = with_events(merged, unmerged_block);
        let assessment = assess_block(&block_cell, of_country, &self.policy, now);
        let sends = |event: &&CellEvent| matches!(event, CellEvent::Send { .. });
        let unmerged = unmerged_block.iter().filter(sends).count();
        let provider = COUNTRIES[block.country].provider;
        let provider_is_down = self.providers[provider].is_down(now);
        let send = SendAssessment {
            block: &assessment,
            country: &country,
            block_cell: &block_cell,
            unmerged: u32::try_from(unmerged).unwrap_or(u32::MAX),
            provider_is_down,
        };
        let admission = admit(class, send, &self.policy, now);
        let unanswered = block_cell.last_day(now).unanswered();
        if !provider_is_down {
            if country.verdict > Verdict::Free {
                self.countries[block.country].mark_suspicious(now);
            }
            if let Some(cell) = self.blocks.get_mut(&block)
                && assessment.verdict > Verdict::Free
            {
                cell.mark_suspicious(now);
            }
        }
        (admission, unanswered < self.policy.block_share)
    }
}

fn with_events<'a>(cell: Cow<'a, Cell>, events: &[CellEvent]) -> Cow<'a, Cell> {
    if events.is_empty() {
        return cell;
    }
    let mut cell = cell.into_owned();
    for event in events {
        apply(&mut cell, *event);
    }
    Cow::Owned(cell)
}

impl EvaluatedGuard for GuardedService {
    fn request(&mut self, request: &SendRequest) -> SendReply {
        let (now, block) = (request.time, request.block);
        self.merge(now);
        if !self.has_budget(block.country, now) {
            return SendReply::Refused;
        }
        let class = if request.returning {
            SendClass::Returning
        } else {
            SendClass::Ordinary
        };
        let (admission, counted) = self.decide(request, class);
        let Admission::Allowed { resend_factor } = admission else {
            self.note(block, ProviderEvent::Refused, now);
            return SendReply::Refused;
        };
        self.budgets[block.country].1 += 1;
        self.note(block, ProviderEvent::Sent, now);
        if class == SendClass::Ordinary {
            let replica = &mut self.replicas[request.replica];
            let tracker = replica.sequences.entry(block).or_default();
            let event = CellEvent::Send {
                time: now,
                sequential: tracker.add(request.digits),
            };
            replica.blocks.entry(block).or_default().push(event);
            if counted {
                let country = replica.countries.entry(block.country).or_default();
                country.push(event);
            }
        }
        SendReply::Sent {
            resend_factor,
            counted,
        }
    }

    fn verified(&mut self, request: &SendRequest, counted: bool, messages: u32, now: Timestamp) {
        self.merge(now);
        self.note(request.block, ProviderEvent::Verified, now);
        if request.returning {
            return;
        }
        let event = CellEvent::Verification {
            sent_at: request.time,
            messages,
        };
        let replica = &mut self.replicas[request.replica];
        replica.blocks.entry(request.block).or_default().push(event);
        if counted {
            let country = replica.countries.entry(request.block.country);
            country.or_default().push(event);
        }
    }

    fn allows_fallback(&mut self, request: &SendRequest) -> bool {
        self.merge(request.time);
        let caller = self.baseline();
        let country = &self.countries[request.block.country];
        let of_country = country.baseline(caller);
        let country = assess_country(country, caller, &self.policy, request.time);
        let block = self.blocks.get(&request.block);
        let block = block.map(|cell| assess_block(cell, of_country, &self.policy, request.time));
        country.verdict == Verdict::Free && block.is_none_or(|block| block.verdict == Verdict::Free)
    }

    fn release(&self, country: usize, now: Timestamp) -> Option<i64> {
        let caller = self.baseline();
        let of_country = self.countries[country].baseline(caller);
        let blocks = self
            .blocks
            .iter()
            .filter(|(block, _)| block.country == country);
        let blocks = blocks.map(|(_, cell)| {
            release(cell, Verdict::Slow, now, |cell, now| {
                assess_block(cell, of_country, &self.policy, now)
            })
        });
        let country = release(&self.countries[country], Verdict::Slow, now, |cell, now| {
            assess_country(cell, caller, &self.policy, now)
        });
        let last = blocks.max().map_or(country, |block| block.max(country));
        Some(last.milliseconds() - now.milliseconds())
    }
}
