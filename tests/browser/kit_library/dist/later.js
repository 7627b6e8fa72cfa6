// The interface of later releases: a class of streamers, and messages that are objects.
import { AppStreamer as early } from "./stand-in.js";

export { StreamType } from "./stand-in.js";
export const EventStatus = { SUCCESS: "success", ERROR: "error" };

export class AppStreamer {
  connect(properties) {
    return early.connect(properties);
  }

  sendMessage(message) {
    if (typeof message !== "object") throw new TypeError("a message is an object");
    early.sendMessage(JSON.stringify(message));
  }
}
