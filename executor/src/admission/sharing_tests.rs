//! The gate with sandboxes that several calls share.

use super::tests::{WAITING, function, gate, sandbox, soon, want};
use super::{Refused, Seat, Want};

/// Three calls of function 2 may run, two of them in one sandbox.
fn sharing() -> Want {
    Want { reuse: Some(sandbox(2)), slots: 2, ..want(2) }
}

#[tokio::test]
async fn calls_share_a_sandbox_up_to_its_slots_and_the_functions_turns() {
    let gate = gate(10, WAITING);
    let (turn, seat) = gate.acquire(sharing(), soon(), true).await.unwrap();
    let Seat::Opening(room, (), _, slot) = seat else { panic!("there is none to share") };
    let (second_turn, second) = gate.acquire(sharing(), soon(), true).await.unwrap();
    let Seat::Shared(_, second) = second else { panic!("there is a free slot") };
    // The third finds no slot, and makes room for itself; the fourth has no turn.
    let (third_turn, third) = gate.acquire(sharing(), soon(), true).await.unwrap();
    let Seat::Opening(other_room, ..) = third else { panic!("both slots are taken") };
    assert_eq!(gate.acquire(sharing(), soon(), true).await.unwrap_err(), Refused::NoTurn(3));
    drop((third_turn, other_room));
    // It is idle only when both have left.
    assert!(!gate.unpark(room.number(), false));
    drop((turn, slot));
    assert!(!gate.unpark(room.number(), false));
    drop((second_turn, second));
    assert!(gate.unpark(room.number(), false));
    assert!(!gate.unpark(room.number(), true));
    drop(room);
    assert_eq!(gate.usage(), (0, 0, 0));
    assert!(gate.shares().functions.values().all(|share| share.running + share.waiting == 0));
}

#[tokio::test]
async fn a_shared_sandbox_that_is_in_use_makes_no_room_and_an_idle_one_does() {
    let gate = gate(5, WAITING);
    let (turn, seat) = gate.acquire(sharing(), soon(), true).await.unwrap();
    let Seat::Opening(room, (), _, slot) = seat else { panic!("there is none to share") };
    assert_eq!(gate.acquire(want(1), soon(), true).await.unwrap_err(), Refused::NoRoom);
    let (other, ()) = tokio::join!(gate.acquire(want(1), None, true), async {
        drop((turn, slot));
        assert!(!gate.unpark(room.number(), false), "it was told to leave");
        drop(room);
    });
    assert!(matches!(other.unwrap().1, Seat::New(_)));
}

#[tokio::test]
async fn a_shared_sandbox_that_is_unfit_or_of_an_old_revision_is_not_found_again() {
    let gate = gate(10, WAITING);
    for retire in [true, false] {
        let (_turn, seat) = gate.acquire(sharing(), soon(), true).await.unwrap();
        let Seat::Opening(room, (), _, slot) = seat else { panic!("there is none to share") };
        if retire {
            gate.retire(&function(2), &sandbox(0).1);
        } else {
            assert!(gate.unpark(room.number(), true));
        }
        let (_second_turn, second) = gate.acquire(sharing(), soon(), true).await.unwrap();
        assert!(matches!(second, Seat::Opening(..)));
        drop((slot, room));
    }
}
