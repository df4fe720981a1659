// openai-node's Responses API.
import { NAMED, QUESTION, SCHEMA, load, main, say } from "./report.mjs";

const OpenAI = (await load("openai")).default;
const { zodTextFormat } = await load("openai/helpers/zod");
const { z } = await load("zod");

const Answer = z.object({ answered_by: z.string(), numbers: z.array(z.number()) });
const LOOK_UP = { type: "function", ...NAMED, parameters: SCHEMA, strict: true };

const responsesOf = (told) =>
  new OpenAI({ baseURL: told.base_url, apiKey: told.key, maxRetries: told.retries }).responses;
const asked = (told) => ({ model: told.model, input: QUESTION });

const note = ({ seen }, answer) => {
  seen.text = answer.output_text ?? seen.text;
  seen.finish = answer.status;
  seen.model = answer.model;
  seen.tokens = answer.usage?.output_tokens;
  seen.degraded = answer.degraded ?? seen.degraded ?? null;
  seen.calls = answer.output
    .filter(({ type }) => type === "function_call")
    .map(({ call_id: id, name, arguments: text }) => ({ id, name, arguments: text }));
};

const stream = async (told, leave = Infinity) => {
  const { seen } = told;
  const left = new AbortController();
  const events = await responsesOf(told).create({ ...asked(told), stream: true }, { signal: left.signal });
  for await (const event of events) {
    seen.degraded = event.degraded ?? seen.degraded;
    if (event.type === "response.output_text.delta") say(seen, event.delta);
    if (event.type === "response.completed") note(told, event.response);
    if (seen.pieces >= leave) left.abort();
  }
  seen.cancelled = left.signal.aborted;
};

const structured = (told, answer) => {
  note(told, answer);
  told.seen.parsed = answer.output_parsed;
};

await main({
  plain: async (told) => {
    const { data, response } = await responsesOf(told).create(asked(told)).withResponse();
    note(told, data);
    told.seen.headers = Object.fromEntries(response.headers);
  },
  stream: (told) => stream(told),
  cancel: (told) => stream(told, told.pieces),
  tools: async (told) => note(told, await responsesOf(told).create({ ...asked(told), tools: [LOOK_UP] })),
  "stream-tools": async (told) =>
    note(told, await responsesOf(told).stream({ ...asked(told), tools: [LOOK_UP] }).finalResponse()),
  structured: async (told) =>
    structured(told, await responsesOf(told).parse({ ...asked(told), text: { format: zodTextFormat(Answer, "answer") } })),
  "stream-structured": async (told) => {
    const events = responsesOf(told).stream({ ...asked(told), text: { format: zodTextFormat(Answer, "answer") } });
    structured(told, await events.finalResponse());
  },
});
