// The page around NVIDIA's library. It has no origin: what it loads can neither read the console nor call anything but
// this server, without a token. It is told one configuration, by one message, and answers on the port that comes with it.

const STATS_EVERY = 1000;
const video = document.getElementById("remote-video");

// Without an origin there is no storage, and touching it throws. A library that keeps settings must find some.
for (const name of ["localStorage", "sessionStorage"]) {
  const kept = new Map();
  const storage = {
    getItem: (key) => kept.get(String(key)) ?? null,
    setItem: (key, value) => void kept.set(String(key), String(value)),
    removeItem: (key) => void kept.delete(String(key)),
    clear: () => kept.clear(),
    key: (index) => [...kept.keys()][index] ?? null,
    get length() {
      return kept.size;
    },
  };
  Object.defineProperty(window, name, { value: storage, configurable: true });
}
Object.defineProperty(document, "cookie", { get: () => "", set: () => undefined, configurable: true });

addEventListener("message", ({ data, ports, source }) => {
  if (source === parent && ports.length === 1) play(data, ports[0]);
}, { once: true });

async function play(config, port) {
  const say = (type, detail) => port.postMessage({ type, ...detail });
  const end = (message, fallback, final = false) => say("ended", { reason: String(message?.info || message?.message || fallback), final });
  let library;
  let streamer;
  let starts = 0;
  try {
    library = await import("./library.js");
    // Early releases have one streamer, later ones a class of them.
    streamer = "connect" in library.AppStreamer ? library.AppStreamer : new library.AppStreamer();
  } catch (error) {
    return end({ message: `NVIDIA's library cannot be used: ${error.message}` }, "", true);
  }
  // Releases 5 take a message as text; later ones, which have EventStatus, take the message.
  port.onmessage = ({ data }) => streamer.sendMessage("EventStatus" in library ? data.message : JSON.stringify(data.message));
  const onStart = (message) => {
    if (message?.action && message.action !== "start") return undefined;
    if (message?.status === "error") return end(message, "The stream could not be started.");
    if (message?.status !== "success") return undefined;
    video.play().catch(() => undefined);
    starts += 1;
    // It says so again where it has connected again by itself.
    if (starts > 1) return undefined;
    say("started");
    return measure((detail) => say("stats", detail));
  };
  try {
    await streamer.connect({
      streamSource: library.StreamType?.DIRECT ?? "direct",
      streamConfig: {
        width: 1920, height: 1080, fps: 60, autoLaunch: true, cursor: "free", mic: false, nativeTouchEvents: true, fitStreamResolution: true,
        ...config,
        videoElementId: video.id,
        audioElementId: "remote-audio",
        onStart,
        onUpdate: () => undefined,
        onCustomEvent: (message) => say("message", { message: plain(message) }),
        onStop: (message) => end(message, "The stream stopped."),
        onTerminate: (message) => end(message, "The application ended the stream."),
      },
    });
  } catch (error) {
    end(error, "NVIDIA's library could not connect.");
  }
  return undefined;
}

/** What can be handed on: data, nothing that runs. */
function plain(message) {
  try {
    return JSON.parse(JSON.stringify(message));
  } catch {
    return null;
  }
}

function measure(tell) {
  let before = video.getVideoPlaybackQuality().totalVideoFrames;
  setInterval(() => {
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    tell({ fps: frames - before, width: video.videoWidth, height: video.videoHeight });
    before = frames;
  }, STATS_EVERY);
}
