use super::{
    How, Phase, Procedure, Ready, Refusal, SpoolEnd, Step, Switch, SyncPoint, allows, next_step,
};
use crate::time::Instant;

fn since() -> Instant {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn switch() -> Switch {
    Switch {
        at: since(),
        downtime_ms: 250,
        marker: Some("m".to_owned()),
        second: "n".to_owned(),
        sync_point: SyncPoint {
            source_revision: "s".to_owned(),
            target_revision: "t".to_owned(),
        },
        drained: SpoolEnd {
            segment: 0,
            offset: 100,
        },
    }
}

/// Every phase, in the order of a migration.
fn phases() -> [Phase; 14] {
    let (since, marker) = (since(), "m".to_owned());
    let ready = Ready {
        how: How::Proven,
        since,
    };
    let drained = SpoolEnd {
        segment: 0,
        offset: 100,
    };
    [
        Phase::Planned {},
        Phase::Copying { since },
        Phase::Incomplete { since },
        Phase::Copied { since },
        Phase::Unequal { since },
        Phase::Proven { since },
        Phase::Resyncing {
            since,
            writing: true,
        },
        Phase::Resynced { since },
        Phase::Following { ready },
        Phase::Fenced { ready, at: since },
        Phase::MarkerWritten {
            ready,
            at: since,
            marker: marker.clone(),
        },
        Phase::Drained {
            ready,
            at: since,
            marker,
            drained,
        },
        Phase::Switched { switch: switch() },
        Phase::Verified {
            switch: switch(),
            equal: String::new(),
        },
    ]
}

const COPY: Step = Step::Copy { restart: false };
const RESTART: Step = Step::Copy { restart: true };

/// What is allowed in each phase, in the order of [`phases`]: `.` yes, else the reason.
#[test]
fn each_phase_allows_the_steps_of_the_table() {
    let table = [
        // Planned, Copying, Incomplete, Copied, Unequal, Proven, Resyncing, Resynced, Following, Fenced,
        // MarkerWritten, Drained, Switched, Verified.
        (Step::Plan, "............SS"),
        (COPY, "......R.....SS"),
        (RESTART, "............SS"),
        (Step::Follow, "NUU.U.R.....SS"),
        (Step::Verify, "NUU.U.R.....SS"),
        (Step::Cutover, "NUU.U.R......."),
        (Step::Resync, "N...........SS"),
        (Step::Reverse, "OOOOOOOOOOOO.."),
        (Step::Abort, ".............."),
        (Step::Status, ".............."),
        (Step::Check, "LLLLLLLLLLLLLL"),
    ];
    for (step, expected) in table {
        for (phase, expected) in phases().iter().zip(expected.chars()) {
            let expected = match expected {
                'N' => Err(Refusal::NothingCopied),
                'U' => Err(Refusal::CopyUnfinished),
                'R' => Err(Refusal::ResyncUnfinished),
                'S' => Err(Refusal::SwitchOrdered),
                'O' => Err(Refusal::SwitchNotOrdered),
                'L' => Err(Refusal::IsLive),
                _ => Ok(()),
            };
            let found = allows(Procedure::Live, phase, step);
            assert_eq!(found, expected, "{step:?} in {phase:?}");
        }
    }
}

#[test]
fn fenced_procedure_has_no_step_that_captures() {
    for phase in phases() {
        for step in [Step::Follow, Step::Verify, Step::Cutover, Step::Resync] {
            let found = allows(Procedure::Fenced, &phase, step);
            assert_eq!(found, Err(Refusal::IsFenced));
        }
    }
    let check = |phase: &Phase| allows(Procedure::Fenced, phase, Step::Check);
    assert_eq!(check(&Phase::Planned {}), Err(Refusal::NothingCopied));
    assert_eq!(check(&Phase::Proven { since: since() }), Ok(()));
}

/// No step that writes to the target, or forgets the fence, is allowed once a switch was ordered.
#[test]
fn ordered_switch_is_undone_by_no_step() {
    for phase in phases().iter().filter(|phase| phase.switch().is_some()) {
        for step in [Step::Plan, COPY, RESTART, Step::Follow, Step::Resync] {
            let found = allows(Procedure::Live, phase, step);
            assert_eq!(found, Err(Refusal::SwitchOrdered));
        }
        assert_eq!(&phase.clone().unfenced(), phase);
    }
}

#[test]
fn forgotten_fence_leaves_what_was_followed() {
    for phase in phases() {
        let (ready, is_fenced) = (phase.ready(), phase.fenced_at().is_some());
        let unfenced = phase.clone().unfenced();
        assert_eq!(unfenced.fenced_at(), None);
        assert_eq!(unfenced.ready(), ready);
        assert_eq!(unfenced != phase, is_fenced);
    }
}

#[test]
fn phases_are_kept_as_they_are() {
    for phase in phases() {
        let text = serde_json::to_string(&phase).unwrap();
        assert_eq!(
            serde_json::from_str::<Phase>(&text).unwrap(),
            phase,
            "{text}"
        );
    }
    assert!(serde_json::from_str::<Phase>(r#"{"name":"planned","more":1}"#).is_err());
}

#[test]
fn phase_is_shown_with_its_time() {
    let shown: Vec<String> = phases().iter().map(ToString::to_string).collect();
    let names = [
        "not begun",
        "begun",
        "incomplete",
        "copied",
        "unequal",
        "proven",
        "resyncing",
        "resynced",
        // Behind these it stays what the target held before.
        "proven",
        "proven",
        "proven",
        "proven",
    ];
    assert_eq!(shown[0], names[0]);
    for (shown, name) in shown.iter().zip(names).skip(1) {
        assert_eq!(*shown, format!("{name} since 2026-01-01T00:00:00Z"));
    }
    for switched in &shown[12..] {
        assert_eq!(
            switched,
            "switched on 2026-01-01T00:00:00Z, write downtime 0.250 s"
        );
    }
}

#[test]
fn steps_procedures_and_origins_are_named_as_on_the_cli() {
    let steps = [
        (Step::Copy { restart: true }, "copy"),
        (Step::Follow, "follow"),
        (Step::Verify, "verify"),
        (Step::Resync, "resync"),
        (Step::Cutover, "cutover"),
        (Step::Abort, "abort"),
        (Step::Reverse, "reverse"),
    ];
    for (step, name) in steps {
        assert_eq!(step.name(), name);
    }
    assert_eq!(Procedure::Live.name(), "live");
    assert_eq!(Procedure::Fenced.name(), "fenced");
    assert_eq!(How::Copied.name(), "copied");
    assert_eq!(How::Resynced.name(), "resynced");
    assert_eq!(How::Switched.name(), "the source before the switch");
}

#[test]
fn next_step_is_allowed_in_its_phase() {
    for procedure in [Procedure::Live, Procedure::Fenced] {
        for phase in phases() {
            let next = next_step(procedure, &phase);
            assert_eq!(
                allows(procedure, &phase, next),
                Ok(()),
                "{procedure:?} {phase:?}"
            );
        }
    }
}
