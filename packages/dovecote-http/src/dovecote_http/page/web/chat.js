// The chat: one conversation an agent, several of which may run at once; the picker says which one is
// seen. Leaving the picker's agent does not stop its answer, Esc does.

import { agentPath, call } from "./api.js";
import { answer } from "./answers.js";
import { Conversations } from "./conversations.js";
import { ask } from "./dialog.js";
import { count, find, make, seconds } from "./dom.js";

const NOBODY = "";

export class Chat {
  constructor(fault) {
    this.fault = fault;
    this.conversations = new Conversations();
    this.running = new Map(); // agent -> AbortController
    this.names = []; // on the server
    this.made = []; // here, and not yet there
    this.agent = NOBODY;
    this.pick(NOBODY);
    this.listen();
  }

  listen() {
    find("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running.has(this.agent)) this.stop();
      else this.send();
    });
    find("message").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.running.has(this.agent)) this.send();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !find("dialog").open) this.stop();
    });
    find("agent").addEventListener("change", () => this.picked());
    find("fork").addEventListener("click", () => this.fork(this.agent));
    find("clear").addEventListener("click", () => this.clear());
  }

  // ---- agents ----

  show({ agents }) {
    this.names = agents.map((agent) => agent.id);
    this.made = this.made.filter((name) => !this.names.includes(name));
    const picker = find("agent");
    const names = [...this.made, ...this.names].sort((one, other) => one.localeCompare(other));
    if (this.agent && !names.includes(this.agent)) names.unshift(this.agent);
    const wanted = JSON.stringify([names, this.agent]);
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    const option = (value, label, extra = {}) => make("option", { value, selected: value === this.agent && !extra["data-new"], ...extra }, label);
    picker.replaceChildren(option(NOBODY, "without a name"), ...names.map((name) => option(name, name)),
      option("new", "new agent …", { "data-new": "" }));
  }

  async picked() {
    const picker = find("agent");
    if (picker.selectedOptions[0]?.dataset.new === undefined) return this.pick(picker.value);
    const name = await ask({ title: "New agent", label: "Name", ok: "Start", text: "It keeps its own KV cache from its first turn on." });
    this.pick(name || this.agent);
    find("message").focus();
  }

  pick(name) {
    this.agent = name;
    if (name && !this.names.includes(name) && !this.made.includes(name)) this.made.push(name);
    this.drawn = null;
    this.show({ agents: this.names.map((id) => ({ id })) });
    find("fork").disabled = name === NOBODY;
    this.render();
  }

  async fork(name) {
    const next = await ask({
      title: `Fork ${name}`, label: "Name of the fork", ok: "Fork", value: `${name}-2`,
      text: "It begins with the same history and shares its blocks: none is copied.",
    });
    if (!next) return;
    try {
      await call(`${agentPath(name)}/fork`, { method: "POST", body: { name: next } });
      this.conversations.copy(name, next);
      this.pick(next);
      find("message").focus();
    } catch (error) {
      this.fault(error);
    }
  }

  clear() {
    this.stop();
    this.conversations.clear(this.agent);
    this.render();
    find("message").focus();
  }

  // ---- turns ----

  stop() {
    this.running.get(this.agent)?.abort();
  }

  async send() {
    const text = find("message").value.trim();
    if (!text) return;
    find("message").value = "";
    const { agent } = this;
    const turns = this.conversations.of(agent);
    turns.push({ role: "user", text });
    const messages = history(turns);
    const turn = { role: "assistant", text: "", thought: "" };
    turns.push(turn);
    const ending = new AbortController();
    this.running.set(agent, ending);
    this.render();
    try {
      const wanted = { agent, messages, signal: ending.signal, temperature: Number(find("temperature").value), most: Number(find("most").value) || 256 };
      turn.facts = await answer(wanted, (piece) => this.add(agent, turn, piece));
    } catch (error) {
      if (ending.signal.aborted) turn.stopped = true;
      else turn.fault = error.message;
    } finally {
      this.running.delete(agent);
      this.conversations.save();
      if (this.agent === agent) this.render();
    }
  }

  add(agent, turn, { text, thought }) {
    turn.text += text;
    turn.thought += thought;
    if (this.agent !== agent || !this.last) return;
    this.keepAtEnd(() => this.last.replaceWith((this.last = this.element(turn, true))));
  }

  // ---- drawing ----

  render() {
    const turns = this.conversations.of(this.agent);
    const runs = this.running.has(this.agent);
    const log = find("log");
    const elements = turns.map((turn, i) => this.element(turn, runs && i === turns.length - 1));
    this.last = elements.at(-1) ?? null;
    log.replaceChildren(...(elements.length ? elements : [this.welcome()]));
    log.setAttribute("aria-busy", String(runs));
    log.scrollTop = log.scrollHeight;
    find("send").textContent = runs ? "Stop" : "Send";
    find("clear").disabled = turns.length === 0;
  }

  keepAtEnd(change) {
    const log = find("log");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    change();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  welcome() {
    if (this.agent && this.names.includes(this.agent)) {
      return make("p", { class: "empty" }, `The server keeps no text, so this page cannot show what ${this.agent} has said so far. What you send begins a new conversation under its name.`);
    }
    if (this.agent) return make("p", { class: "empty" }, `Say something, and ${this.agent} has a cache of its own.`);
    return make("p", { class: "empty" }, "Pick or name an agent to see its next turns start from the pool. Without a name, equal beginnings are found all the same.");
  }

  element(turn, running) {
    const text = make("div", { class: "text" }, turn.text);
    const speaker = (words) => make("p", { class: "hidden" }, words);
    if (turn.role === "user") return make("div", { class: "turn user" }, speaker("You:"), text);
    return make("div", { class: running ? "turn assistant running" : "turn assistant" }, speaker("Answer:"),
      turn.thought ? make("div", { class: "thought" }, turn.thought) : null, text,
      turn.fault ? make("p", { class: "fault" }, turn.fault) : null,
      turn.facts || turn.stopped ? facts(turn) : null);
  }
}

// What the model is to read: turns that failed are left out, with the question they failed on.
function history(turns) {
  const said = [];
  const system = find("system").value.trim();
  if (system) said.push({ role: "system", content: system });
  turns.forEach((turn, i) => {
    const failed = turn.role === "user" && turns[i + 1]?.fault && !turns[i + 1].text;
    if (turn.text && !failed) said.push({ role: turn.role, content: turn.text });
  });
  return said;
}

function facts({ facts: known, stopped }) {
  const fact = (number, words) => make("span", {}, make("b", {}, number), ` ${words}`);
  if (!known) return make("p", { class: "facts" }, stopped ? "stopped" : "");
  const speed = known.tokens > 1 && known.total_s > known.first_s ? (known.tokens - 1) / (known.total_s - known.first_s) : null;
  return make("p", { class: "facts" },
    fact(count(known.cached), `of ${count(known.prompt)} prompt tokens cached${known.source && `, ${known.source.replace("+", " and ")}`}`),
    fact(seconds(known.first_s), "to the first token"),
    speed ? fact(speed.toFixed(1), "tokens/s") : null,
    known.cached && known.restore_ms !== null ? fact(`${known.restore_ms} ms`, "to restore") : null,
    known.reason === "length" ? make("span", {}, "cut at the limit") : null);
}
