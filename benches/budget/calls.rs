//! Ways to call tasks and flows that several workloads have in common.

use std::collections::VecDeque;

/// All are called, and then each is awaited: the sum of their results.
pub(crate) async fn all<F, E>(calls: impl Iterator<Item = F>) -> Result<u64, E>
where
    F: IntoFuture<Output = Result<u64, E>>,
{
    let (runs, mut sum) = (calls.collect::<Vec<_>>(), 0);
    for run in runs {
        sum += run.await?;
    }
    Ok(sum)
}

/// So many at a time: the oldest run is awaited before another call is made.
pub(crate) async fn windowed<F, E>(at_a_time: usize, mut calls: impl Iterator<Item = F>) -> Result<u64, E>
where
    F: IntoFuture<Output = Result<u64, E>>,
{
    let (mut window, mut sum) = (VecDeque::with_capacity(at_a_time), 0);
    loop {
        if window.len() == at_a_time
            && let Some(oldest) = window.pop_front()
        {
            sum += oldest.await?;
        }
        let Some(run) = calls.next() else { break };
        window.push_back(run);
    }
    for run in window {
        sum += run.await?;
    }
    Ok(sum)
}
