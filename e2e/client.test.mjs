// The official OpenAI client for Node against a running service: run by test_node.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { BASE_URL: baseURL, API_KEY: apiKey, MODEL: model } = process.env;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Why is the sky blue?" }];
const chat = (options = {}) => client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 24, ...options });
const complete = (options = {}) =>
  client.completions.create({ model, prompt: "The capital of France is", temperature: 0, max_tokens: 12, ...options });

async function collected(stream) {
  let text = "";
  let last;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? chunk.choices[0]?.text ?? "";
    last = chunk;
  }
  return { text, last };
}

test("an answer", async () => {
  const answer = await chat();
  assert.equal(answer.object, "chat.completion");
  assert.ok(answer.choices[0].message.content.length > 10);
  assert.equal(answer.usage.completion_tokens, 24);
});

test("streaming gives the same text, and usage if asked for", async () => {
  const whole = await chat();
  const { text, last } = await collected(await chat({ stream: true, stream_options: { include_usage: true } }));
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(last.usage, whole.usage);
});

test("the stream helper of the client", async () => {
  const stream = client.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 24 });
  assert.equal(await stream.finalContent(), (await chat()).choices[0].message.content);
});

test("n, stop, seed, logprobs and bias", async () => {
  assert.equal((await chat({ n: 2, temperature: 1, seed: 3 })).choices.length, 2);
  const whole = (await chat()).choices[0].message.content;
  const stop = whole.slice(9, 15);
  assert.equal((await chat({ stop })).choices[0].message.content, whole.slice(0, whole.indexOf(stop)));
  const seeded = async () => (await chat({ temperature: 1, seed: 5 })).choices[0].message.content;
  assert.equal(await seeded(), await seeded());
  const tokens = (await chat({ logprobs: true, top_logprobs: 3 })).choices[0].logprobs.content;
  assert.equal(tokens.length, 24);
  assert.equal(tokens[0].top_logprobs.length, 3);
  await assert.rejects(chat({ logit_bias: { nonsense: 1 } }), OpenAI.BadRequestError);
});

test("completions: echo, logprobs, several prompts", async () => {
  const echoed = await complete({ echo: true, logprobs: 2 });
  assert.ok(echoed.choices[0].text.startsWith("The capital of France is"));
  assert.equal(echoed.choices[0].logprobs.tokens.length, echoed.choices[0].logprobs.token_logprobs.length);
  assert.equal((await complete({ prompt: ["a", "b", "c"] })).choices.length, 3);
  assert.equal((await collected(await complete({ stream: true }))).text, (await complete()).choices[0].text);
});

test("errors are typed", async () => {
  await assert.rejects(chat({ temperature: 99 }), OpenAI.BadRequestError);
  await assert.rejects(chat({ model: "gpt-9" }), OpenAI.NotFoundError);
  await assert.rejects(
    new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).chat.completions.create({ model, messages }),
    OpenAI.AuthenticationError,
  );
  await assert.rejects(complete({ prompt: "word ".repeat(5000) }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    return error.code === "context_length_exceeded";
  });
});

test("sixteen streams at once give what one gives alone", async () => {
  const alone = (await complete()).choices[0].text;
  const streams = Array.from({ length: 16 }, async () => collected(await complete({ stream: true })));
  for (const { text } of await Promise.all(streams)) assert.equal(text, alone);
});

test("an aborted stream ends and harms nobody", async () => {
  const stream = await chat({ stream: true, max_tokens: 500 });
  for await (const _ of stream) {
    stream.controller.abort();
    break;
  }
  assert.ok((await chat({ max_tokens: 2 })).choices[0].message.content);
});

test("models", async () => {
  assert.equal((await client.models.list()).data[0].id, model);
  assert.equal((await client.models.retrieve(model)).id, model);
});
