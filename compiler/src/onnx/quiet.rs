//! Calls into code that may panic on hostile input, without a trace on the terminal.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex, PoisonError};

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// How many calls are running, and the hook that was there before the first.
static RUNNING: Mutex<(usize, Option<Arc<Hook>>)> = Mutex::new((0, None));

/// Runs `f`; a panic in it becomes `Err` with its message and prints nothing. Panics of other threads
/// are reported as ever, and the panic hook is the caller's again when the last call returns.
pub(super) fn quietly<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    if IS_QUIET.get() {
        return catch_unwind(AssertUnwindSafe(f)).map_err(message);
    }
    enter();
    IS_QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    IS_QUIET.set(false);
    leave();
    result.map_err(message)
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    one_line(text.unwrap_or("internal failure"))
}

/// The first line of a text.
pub(super) fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn enter() {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.0 += 1;
    if running.0 == 1 {
        let previous = Arc::new(take_hook());
        let inner = previous.clone();
        set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                inner(info);
            }
        }));
        running.1 = Some(previous);
    }
}

fn leave() {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.0 -= 1;
    if running.0 == 0
        && let Some(previous) = running.1.take()
    {
        // Only the hook that `enter` set holds the other reference.
        drop(take_hook());
        if let Ok(previous) = Arc::try_unwrap(previous) {
            set_hook(previous);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_messages() {
        assert_eq!(quietly(|| 3), Ok(3));
        assert_eq!(quietly(|| panic!("no {}\nmore", 1)), Err::<(), _>("no 1".into()));
        assert_eq!(quietly(|| quietly(|| panic!("inner"))), Ok(Err::<(), _>("inner".into())));
    }
}
