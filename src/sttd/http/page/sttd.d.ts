/** Types of sttd.js. */

export interface Word {
  word: string;
  /** Seconds since the stream began. */
  start: number;
  end: number;
  confidence: number;
}

/** What each event has as its `detail`. */
export interface Events {
  open: Record<string, never>;
  ready: { type: "ready" };
  partial: { type: "partial"; text: string };
  final: { type: "final"; text: string; words?: Word[] };
  error: { type: "error"; message: string; code?: string; fatal?: boolean };
  warning: { type: "warning"; message: string };
  /** The level of the microphone: 0 to 1. */
  level: { peak: number };
  /** The connection is lost, or was refused for want of room; it is made again after `again_ms`. */
  lost: { code: number; reason: string; again_ms: number };
  /** The connection is refused for good; connect() tries again. */
  refused: SttdError;
  close: { code: number; reason: string };
}

export type Code =
  | "token" | "bad_token" | "forbidden" | "busy" | "refused" | "gone"
  | "insecure" | "denied" | "no_microphone" | "microphone" | "closed";

export class SttdError extends Error {
  readonly code: Code;
}

/** Options of a session, as in docs/protocols.md: language, words, partials, ... */
export type Options = { [option: string]: string | number | boolean };

export type Settings = {
  /** By default ws/stt beside the module. */
  url?: string | URL;
  token?: string;
  [option: string]: string | number | boolean | URL | undefined;
};

export class SttdClient extends EventTarget {
  constructor(settings?: Settings);
  token: string;
  readonly connected: boolean;
  readonly listening: boolean;
  connect(): Promise<void>;
  microphone(settings?: { deviceId?: string }): Promise<void>;
  stopMicrophone(): Promise<void>;
  configure(options: Options): void;
  send(samples: Int16Array): void;
  flush(): void;
  close(): Promise<void>;
  /** Ends the session at once; nothing more comes of it. */
  abort(): void;
  addEventListener<K extends keyof Events>(
    name: K, listener: (event: CustomEvent<Events[K]>) => void, options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    name: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions,
  ): void;
}

export function toInt16(floats: ArrayLike<number>): Int16Array;
