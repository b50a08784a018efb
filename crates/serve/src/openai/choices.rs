//! The choices of one request at work: some at a time, so that one request with many doesn't keep all others of the same
//! owner waiting; among owners, the engine is fair itself.

use std::vec::IntoIter;

use engine::llm::request::{Event, Failure, GenerateRequest, SubmitError, Terms};
use engine::llm::{Generation, Llm};
use futures_util::stream::{BoxStream, SelectAll, Stream, StreamExt, unfold};

/// Dropping it cancels what still runs.
pub struct Choices {
    llm: Llm,
    terms: Terms,
    running: SelectAll<BoxStream<'static, (usize, Event)>>,
    rest: std::iter::Enumerate<IntoIter<GenerateRequest>>,
}

impl Choices {
    /// Begins as many as may run at once: half of the model's places. They count as one in the queue.
    ///
    /// # Errors
    /// Where the engine doesn't take the first of them.
    pub fn begin(llm: Llm, terms: Terms, requests: Vec<GenerateRequest>) -> Result<Choices, SubmitError> {
        let at_once = (llm.stats().slots as usize / 2).max(1);
        let rest = requests.into_iter().enumerate();
        let mut choices = Choices { llm, terms, running: SelectAll::new(), rest };
        if let Some((index, request)) = choices.rest.next() {
            let generation = choices.llm.submit_on(&choices.terms, request)?;
            choices.follow(index, generation);
        }
        for _ in 1..at_once {
            choices.begin_next()?;
        }
        Ok(choices)
    }

    fn begin_next(&mut self) -> Result<(), SubmitError> {
        if let Some((index, request)) = self.rest.next() {
            let generation = self.llm.submit_further(&self.terms, request)?;
            self.follow(index, generation);
        }
        Ok(())
    }

    fn follow(&mut self, index: usize, generation: Generation) {
        let next = move |mut generation: Generation| async move {
            let event = generation.next().await?;
            Some(((index, event), generation))
        };
        self.running.push(Box::pin(unfold(generation, next)));
    }

    /// The events of all choices as they come, each with its choice's index.
    pub fn events(self) -> impl Stream<Item = (usize, Event)> + Send + Unpin {
        Box::pin(unfold(self, |mut choices| async move {
            let (index, event) = choices.running.next().await?;
            let begun = if matches!(event, Event::Done { .. }) { choices.begin_next() } else { Ok(()) };
            let event = begun.map_or_else(|error| Event::Failed(Failure::Further(error)), |()| event);
            Some(((index, event), choices))
        }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use engine::llm::Settings;
    use engine::llm::request::{FinishReason, Sampling};

    use super::*;

    /// A tiny model whose weights mean nothing, with a context of 128 tokens.
    pub fn llm(sequences_max: usize, queue_max: usize) -> Llm {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/decoders/llama");
        let settings = Settings {
            threads: 1,
            sequences_max,
            queue_max,
            memory_max_bytes: Some(1 << 28),
            ..Settings::default()
        };
        Llm::load(path.as_ref(), &settings, &mut |_, _| {}).unwrap()
    }

    fn requests(count: usize, tokens_max: usize) -> Vec<GenerateRequest> {
        let request = GenerateRequest {
            prompt: vec![5; 8],
            tokens_max,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
            ignore_end: true,
        };
        vec![request; count]
    }

    fn is_done(event: &(usize, Event)) -> bool {
        matches!(event.1, Event::Done { .. })
    }

    #[tokio::test]
    async fn many_choices_are_served_by_an_idle_engine_with_a_short_queue() {
        let llm = llm(2, 1);
        let events: Vec<_> =
            Choices::begin(llm, Terms::default(), requests(8, 3)).unwrap().events().collect().await;
        let mut done: Vec<usize> =
            events.iter().filter(|event| is_done(event)).map(|event| event.0).collect();
        done.sort_unstable();
        assert_eq!(done, (0..8).collect::<Vec<_>>());
        assert_eq!(events.len(), 8 * 4);
    }

    #[tokio::test]
    async fn usage_and_metrics_count_the_same_tokens() {
        let llm = llm(8, 8);
        let mut requests = requests(64, 100);
        requests.iter_mut().for_each(|request| request.ignore_end = false);
        let (mut tokens, mut ended, mut reported) = (0, 0, 0);
        let mut events = Choices::begin(llm.clone(), Terms::default(), requests).unwrap().events();
        while let Some((_, event)) = events.next().await {
            match event {
                Event::Token(_) => tokens += 1,
                Event::Done { reason, usage, .. } => {
                    reported += usage.completion_tokens;
                    ended += usize::from(reason == FinishReason::Stop);
                }
                other => panic!("{other:?}"),
            }
        }
        while llm.stats().running > 0 {
            tokio::task::yield_now().await;
        }
        assert!(ended > 0);
        assert_eq!((reported, llm.stats().generated_tokens_total), (tokens, tokens as u64));
    }

    #[tokio::test]
    async fn choices_after_the_first_take_no_place_in_the_queue() {
        let llm = llm(4, 2);
        let begin =
            |count, tokens_max| Choices::begin(llm.clone(), Terms::default(), requests(count, tokens_max));
        let held = [begin(8, 110).unwrap(), begin(8, 110).unwrap(), begin(8, 110).unwrap()];
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let events: Vec<_> = begin(1, 1).unwrap().events().collect().await;
        assert!(is_done(events.last().unwrap()), "{events:?}");
        drop(held);
    }

    #[tokio::test]
    async fn another_request_gets_its_answer_beside_one_with_many_choices() {
        let llm = llm(4, 1);
        let mut many = Choices::begin(llm.clone(), Terms::default(), requests(128, 60)).unwrap().events();
        let many_done = tokio::spawn(async move {
            let mut done = 0;
            while let Some(event) = many.next().await {
                done += usize::from(is_done(&event));
                tokio::task::yield_now().await;
            }
            done
        });
        for _ in 0..3 {
            let events: Vec<_> = Choices::begin(llm.clone(), Terms::default(), requests(1, 2))
                .unwrap()
                .events()
                .collect()
                .await;
            assert!(is_done(events.last().unwrap()), "{events:?}");
        }
        assert!(!many_done.is_finished());
        many_done.abort();
    }
}
