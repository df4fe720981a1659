// openai-node. The same arguments and the same line of JSON as report.py has them.
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.CLIENT_MODULES}/`);
const load = async (name) => import(pathToFileURL(require.resolve(name)).href);
const OpenAI = (await load("openai")).default;
const { zodResponseFormat } = await load("openai/helpers/zod");
const { z } = await load("zod");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "base-url": { type: "string" },
    key: { type: "string" },
    model: { type: "string" },
    retries: { type: "string", default: "2" },
  },
});
const client = new OpenAI({ baseURL: values["base-url"], apiKey: values.key, maxRetries: Number(values.retries) });
const asked = { model: values.model, messages: [{ role: "user", content: "Where is my parcel?" }] };
let seen;
const Answer = z.object({ answered_by: z.string(), numbers: z.array(z.number()) });
const LOOK_UP = {
  type: "function",
  function: {
    name: "look_up",
    description: "Look something up.",
    parameters: {
      type: "object",
      properties: { answered_by: { type: "string" }, numbers: { type: "array", items: { type: "integer" } } },
      required: ["answered_by", "numbers"],
      additionalProperties: false,
    },
  },
};

const note = (answer) => {
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

const stream = async (leave = Infinity) => {
  const left = new AbortController();
  const chunks = await client.chat.completions.create(
    { ...asked, stream: true, stream_options: { include_usage: true } },
    { signal: left.signal },
  );
  for await (const chunk of chunks) {
    seen.model = chunk.model;
    seen.degraded = chunk.degraded ?? seen.degraded;
    seen.tokens = chunk.usage?.completion_tokens;
    for (const choice of chunk.choices) {
      if (choice.delta.content) {
        seen.text += choice.delta.content;
        seen.pieces += 1;
      }
      seen.finish = choice.finish_reason ?? seen.finish;
    }
    if (seen.pieces >= leave) left.abort();
  }
  seen.cancelled = left.signal.aborted;
};

const scenarios = {
  plain: async () => {
    const { data, response } = await client.chat.completions.create(asked).withResponse();
    note(data);
    seen.headers = Object.fromEntries(response.headers);
  },
  stream: () => stream(),
  cancel: () => stream(3),
  tools: async () => note(await client.chat.completions.create({ ...asked, tools: [LOOK_UP] })),
  "stream-tools": async () => note(await client.chat.completions.stream({ ...asked, tools: [LOOK_UP] }).finalChatCompletion()),
  structured: async () => {
    const answer = await client.chat.completions.parse({ ...asked, response_format: zodResponseFormat(Answer, "answer") });
    note(answer);
    seen.parsed = answer.choices[0].message.parsed;
  },
  "stream-structured": async () => {
    const events = client.chat.completions.stream({ ...asked, response_format: zodResponseFormat(Answer, "answer") });
    const answer = await events.finalChatCompletion();
    note(answer);
    seen.parsed = answer.choices[0].message.parsed;
  },
  completions: async () => {
    const answer = await client.completions.create({ model: values.model, prompt: "Where is my parcel?", max_tokens: 64 });
    Object.assign(seen, { text: answer.choices[0].text, finish: answer.choices[0].finish_reason, model: answer.model });
  },
  models: async () => {
    seen.models = [];
    for await (const model of client.models.list()) seen.models.push(model.id);
    seen.model = (await client.models.retrieve(values.model)).id;
  },
};

for (const scenario of positionals) {
  seen = { text: "", pieces: 0 };
  try {
    await scenarios[scenario]();
  } catch (error) {
    const { status = null, code = null } = error;
    const retryAfter = error.headers?.get?.("retry-after") ?? null;
    seen.errors = [{ types: [error.constructor.name], status, code, retry_after: retryAfter, message: String(error) }];
  }
  process.stdout.write(`${JSON.stringify(seen)}\n`);
}
// The end of the process would close any connection.
if (positionals.includes("cancel")) {
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.on("end", resolve));
}
