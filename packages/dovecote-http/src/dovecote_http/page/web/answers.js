// One answer of the model, as it comes: its text, and at its end what it cost.

import { call, events } from "./api.js";

// Calls add({text, thought}) for each piece. Returns the facts of the answer.
export async function answer({ agent, messages, temperature, most, signal }, add) {
  const began = performance.now();
  const response = await call("chat/completions", {
    method: "POST", signal,
    body: {
      messages, temperature, max_completion_tokens: most, stream: true, stream_options: { include_usage: true },
      ...(agent ? { session_id: agent } : {}),
    },
  });
  const facts = { cached: 0, prompt: 0, tokens: 0, first_s: null, total_s: 0, reason: "", restore_ms: restore(response), source: source(response) };
  for await (const data of events(response)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    const choice = chunk.choices?.[0];
    const text = choice?.delta?.content ?? "";
    const thought = choice?.delta?.reasoning_content ?? choice?.delta?.reasoning ?? "";
    if (text || thought) {
      facts.first_s ??= (performance.now() - began) / 1000;
      add({ text, thought });
    }
    if (choice?.finish_reason) facts.reason = choice.finish_reason;
    if (chunk.usage) {
      facts.prompt = chunk.usage.prompt_tokens;
      facts.tokens = chunk.usage.completion_tokens;
      facts.cached = chunk.usage.prompt_tokens_details?.cached_tokens ?? 0;
    }
  }
  facts.total_s = (performance.now() - began) / 1000;
  return facts;
}

// Whose work the cached tokens were: "own", "shared" or "own+shared"; "" if it was not told.
function source(response) {
  return (response.headers.get("X-Dovecote-Cache") ?? "").match(/source=([a-z+]+)/)?.[1] ?? "";
}

function restore(response) {
  const found = (response.headers.get("Server-Timing") ?? "").match(/restore;dur=([0-9.]+)/);
  return found ? Number(found[1]) : null;
}
