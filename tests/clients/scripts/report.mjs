// What report.py is to the scripts in Python, for those in JavaScript.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.CLIENT_MODULES}/`);
export const load = async (name) => import(pathToFileURL(require.resolve(name)).href);

export const QUESTION = "Where is my parcel?";
export const TEXTS = ["Where is my parcel?", "It is at the depot."];
export const NAMED = { name: "look_up", description: "Look something up." };
export const SCHEMA = {
  type: "object",
  properties: { answered_by: { type: "string" }, numbers: { type: "array", items: { type: "integer" } } },
  required: ["answered_by", "numbers"],
  additionalProperties: false,
};

// Each scenario is given what it was told, with `seen` to fill.
export const main = async (scenarios) => {
  for await (const line of createInterface({ input: process.stdin })) {
    const told = { ...JSON.parse(line), seen: { text: "", pieces: 0 } };
    const { seen } = told;
    try {
      await scenarios[told.scenario](told);
    } catch (error) {
      const { status = null, code = null } = error;
      const retryAfter = error.headers?.get?.("retry-after") ?? null;
      seen.errors = [{ types: [error.constructor.name], status, code, retry_after: retryAfter, message: String(error) }];
    }
    process.stdout.write(`${JSON.stringify(seen)}\n`);
  }
};

export const say = (seen, piece) => {
  if (piece) {
    seen.text += piece;
    seen.pieces += 1;
  }
};
