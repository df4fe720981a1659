// openai-node: chat, legacy completions, models and embeddings.
import { NAMED, QUESTION, SCHEMA, TEXTS, load, main, say } from "./report.mjs";

const OpenAI = (await load("openai")).default;
const { zodResponseFormat } = await load("openai/helpers/zod");
const { z } = await load("zod");

const Answer = z.object({ answered_by: z.string(), numbers: z.array(z.number()) });
const LOOK_UP = { type: "function", function: { ...NAMED, parameters: SCHEMA } };

const clientOf = (told) => new OpenAI({ baseURL: told.base_url, apiKey: told.key, maxRetries: told.retries });
const chatOf = (told) => clientOf(told).chat.completions;
const asked = (told) => ({ model: told.model, messages: [{ role: "user", content: QUESTION }] });

const note = ({ seen }, answer) => {
  const [choice] = answer.choices;
  seen.text = choice.message.content ?? "";
  seen.finish = choice.finish_reason;
  seen.model = answer.model;
  seen.tokens = answer.usage?.completion_tokens;
  seen.degraded = answer.degraded ?? null;
  seen.calls = (choice.message.tool_calls ?? []).map(({ id, function: { name, arguments: text } }) => ({
    id,
    name,
    arguments: text,
  }));
};

const stream = async (told, leave = Infinity) => {
  const { seen } = told;
  const left = new AbortController();
  const chunks = await chatOf(told).create(
    { ...asked(told), stream: true, stream_options: { include_usage: true } },
    { signal: left.signal },
  );
  for await (const chunk of chunks) {
    seen.model = chunk.model;
    seen.degraded = chunk.degraded ?? seen.degraded;
    seen.tokens = chunk.usage?.completion_tokens;
    for (const choice of chunk.choices) {
      say(seen, choice.delta.content);
      seen.finish = choice.finish_reason ?? seen.finish;
    }
    if (seen.pieces >= leave) left.abort();
  }
  seen.cancelled = left.signal.aborted;
};

const structured = (told, answer) => {
  note(told, answer);
  told.seen.parsed = answer.choices[0].message.parsed;
};

await main({
  plain: async (told) => {
    const { data, response } = await chatOf(told).create(asked(told)).withResponse();
    note(told, data);
    told.seen.headers = Object.fromEntries(response.headers);
  },
  stream: (told) => stream(told),
  cancel: (told) => stream(told, told.pieces),
  tools: async (told) => note(told, await chatOf(told).create({ ...asked(told), tools: [LOOK_UP] })),
  "stream-tools": async (told) =>
    note(told, await chatOf(told).stream({ ...asked(told), tools: [LOOK_UP] }).finalChatCompletion()),
  structured: async (told) =>
    structured(told, await chatOf(told).parse({ ...asked(told), response_format: zodResponseFormat(Answer, "answer") })),
  "stream-structured": async (told) => {
    const events = chatOf(told).stream({ ...asked(told), response_format: zodResponseFormat(Answer, "answer") });
    structured(told, await events.finalChatCompletion());
  },
  completions: async (told) => {
    const answer = await clientOf(told).completions.create({ model: told.model, prompt: QUESTION, max_tokens: 64 });
    const [choice] = answer.choices;
    Object.assign(told.seen, { text: choice.text, finish: choice.finish_reason, model: answer.model });
  },
  models: async (told) => {
    const client = clientOf(told);
    told.seen.models = [];
    for await (const model of client.models.list()) told.seen.models.push(model.id);
    told.seen.model = (await client.models.retrieve(told.model)).id;
  },
  embeddings: async (told) => {
    const answer = await clientOf(told).embeddings.create({ model: told.model, input: TEXTS });
    Object.assign(told.seen, { vectors: answer.data.map((one) => one.embedding), model: answer.model });
  },
});
