// What was said with each agent, in this tab only: the server keeps no text, so whoever wants to go
// on with an agent has to say its history again. It finds it cached.

const KEPT = "dovecote-conversations";

export class Conversations {
  constructor() {
    try {
      this.kept = JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
    } catch {
      this.kept = {};
    }
  }

  // The turns with an agent ("" is nobody): {role, text, facts?, fault?}.
  of(agent) {
    return (this.kept[`@${agent}`] ??= []);
  }

  copy(agent, fork) {
    this.kept[`@${fork}`] = structuredClone(this.of(agent));
    this.save();
  }

  clear(agent) {
    delete this.kept[`@${agent}`];
    this.save();
  }

  save() {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(this.kept));
    } catch {
      // Full or forbidden: the conversation lasts as long as the page.
    }
  }
}
