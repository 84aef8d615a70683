// The server's overview, once a second while somebody looks; comes back by itself after a loss.

import { ApiError, call, events } from "./api.js";

const PAUSE_MS = 2000;

// Calls take(overview) for each one, and lost(error) when there are none for now.
export class Overview {
  constructor(take, lost) {
    this.take = take;
    this.lost = lost;
    this.ending = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.start()));
  }

  start() {
    if (this.ending || document.hidden) return;
    this.ending = new AbortController();
    this.follow(this.ending.signal);
  }

  stop() {
    this.ending?.abort();
    this.ending = null;
  }

  restart() {
    this.stop();
    this.start();
  }

  async follow(signal) {
    while (!signal.aborted) {
      try {
        const response = await call("overview/stream", { signal });
        for await (const text of events(response)) if (!signal.aborted) this.take(JSON.parse(text));
        if (!signal.aborted) this.lost(new ApiError(0, "The server has ended the connection."));
      } catch (error) {
        if (signal.aborted) return;
        this.lost(error);
        if (error.status === 401 || error.status === 403) return this.stop();
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
