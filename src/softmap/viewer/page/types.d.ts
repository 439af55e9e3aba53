// What the modules of the page share. The questions and their answers are those of softmap/viewer/answers.py.

export interface Numbers {
  dtype: "float16" | "float32" | "int32";
  shape: number[];
  /** float16 as the bits of each number: colors.js colours them by these, float16.js reads them. */
  data: Uint16Array | Float32Array | Int32Array;
}

export interface Channel {
  ask(name: string, params: Record<string, string | number>, signal?: AbortSignal): Promise<any>;
  /** What a page that asks nobody holds, in words; left out where it can ask for everything, or holds it. */
  holds?: (say: App["say"]) => string;
  /** How much of a head it holds; left out where it can ask for everything. */
  extent?(layer: number, head: number): Extent;
  /** What the map can show of a head whose weights can't be had, as like as can be to what is wanted; null of others. */
  preview?(layer: number, head: number, how: How, sinks: Sinks): Shown | null;
}

/** All of a head, all its weights but not what they come from, some of it, its thumbnail alone, not even that. */
export type Extent = "whole" | "weights" | "part" | "thumb" | "none";

/** What the map shows of its head. */
export interface Shown {
  how: How;
  sinks: Sinks;
  /** The finest zoom that there is. */
  finest: number;
  /** Whether the head's weights are not there, and whether a file could hold them. */
  preview: boolean;
  able: boolean;
}

export type Of = "tokens" | "target";

export interface LayerInfo {
  number: number;
  path: string;
  kind: "self" | "cross";
  part: "encoder" | "decoder";
  heads: number;
  queries: number;
  keys: number;
  queries_of: Of | null;
  keys_of: Of | null;
  kept: boolean;
  values: boolean;
  summary: boolean;
  /** The zoom whose pixels its thumbnails have. */
  thumb: number;
}

export interface TextInfo {
  tokens: number;
  words: number;
  cut: number;
}

export interface About {
  version: string;
  model: string;
  architecture: string;
  partial: string;
  /** How many files have been compared with their checksums, of how many; left out by files of older versions. */
  verified?: [number, number];
  title: string;
  texts: Record<Of, TextInfo | null>;
  layers: LayerInfo[];
  start: { layer: number; head: number; query: number };
  /** The layers whose queries or keys are patches of a picture; left out by files of older versions. */
  pictures?: number[];
  tile: number;
  words_limit: number;
  page: number;
}

/** A picture on one side of a layer's matrix, or on both. */
export interface PictureInfo {
  index: number;
  side: "queries" | "keys" | "both";
  first: number;
  grid: [number, number];
  /** Which token each patch is, row by row. */
  tokens: number[];
  width: number;
  height: number;
  stretched: boolean;
}

export interface UnitsChunk {
  labels: string[];
  gaps: string[];
  starts: number[];
  special: boolean[];
}

export interface Unit {
  label: string;
  gap: string;
  start: number;
  special: boolean;
}

export type Sinks = "shown" | "hidden" | "rescaled";
export type How = "max" | "mean";
export type Scale = "linear" | "log";
export type Palette = "viridis" | "cividis" | "ink";
export type Direction = "gives" | "receives";
export type Lang = "en" | "zh";
export type View = "text" | "sentence" | "steps" | "picture";

/** Everything that the address holds. query and key are token numbers, -1 for none. */
export interface State {
  layer: number;
  head: number;
  /** Which heads the text is shaded by: the map's, all of its layer, or those picked ("3.1"). */
  mean: "head" | "layer" | "picked";
  picked: string[];
  query: number;
  key: number;
  view: View;
  how: How;
  scale: Scale;
  palette: Palette;
  sinks: Sinks;
  words: boolean;
  direction: Direction;
  /** How the sentence is drawn, and the lines of which heads. */
  form: "columns" | "arcs";
  lines: "head" | "layer";
  /** How the patches of pictures are shaded. */
  patchScale: Scale;
  lang: Lang;
  theme: "auto" | "light" | "dark";
  /** What the map shows, in pixels of zoom 0: left, top, width; null for all of it. */
  box: [number, number, number] | null;
}

export interface Store {
  get(): State;
  set(patch: Partial<State>): void;
  /** Called after each change with the names that changed; returns what ends it. */
  subscribe(listener: (state: State, changed: Set<keyof State>) => void): () => void;
}

/** A pixel of the map with all that can be said of it. */
export interface Pixel {
  rows: [number, number];
  keys: [number, number];
  mean: number | null;
  max: number | null;
  /** Of what a file does not hold: there may be more than is said here. */
  partial?: boolean;
  at: {
    query: number;
    key: number;
    weight: number;
    /** null where a file holds the weight alone. */
    score: number | null;
    scaled: number | null;
    /** Of the word that has more: where that is more than one, score and scaled are of the pieces that look most. */
    pieces: number;
    /** Why there is no weight: the query may not see the key, or the key is left out with the sinks. */
    hidden: "" | "masked" | "left_out";
    query_label: string;
    key_label: string;
    query_context: [string, string, string];
    key_context: [string, string, string];
  } | null;
}

export interface Role {
  head: number;
  role: string | null;
  score: number | null;
  scores: Record<string, number | null>;
}

export interface StepsAnswer {
  title: string;
  query_label: string;
  key_label: string;
  d_k: number;
  scale: number;
  sections: { name: "scores" | "scaled" | "weights" | "output"; title: string; sentences: string[]; number: number | null }[];
  added: { softcap: number | null; bias: string | null; mask: string | null; sink: number | null };
  top: { key: number; label: string; score: number; scaled: number | null; weight: number; share: number | null }[];
  rest: { count: number; weight: number };
  logsumexp: number | null;
  agreement: string | null;
}

export interface Data {
  about: About;
  layer(number: number): LayerInfo;
  units(of: Of | null, words: boolean, count: number): Units;
  tile(question: Record<string, string | number>, signal?: AbortSignal): Promise<Numbers>;
  ask(name: string, params: Record<string, string | number>, signal?: AbortSignal): Promise<any>;
  extent(layer: number, head: number): Extent;
  preview(layer: number, head: number, how: How, sinks: Sinks): Shown | null;
}

/** The units of one text, or the numbers of what has no text. Fetched piece by piece, as they are looked at. */
export interface Units {
  count: number;
  /** A unit, if it is here; else null, and it is on its way: `whenCame` tells. */
  peek(i: number): Unit | null;
  load(start: number, stop: number): Promise<void>;
  /** Each unit's first token, and the number of tokens. */
  starts(): Promise<Int32Array>;
  whenCame(listener: () => void): () => void;
}

/** What a view is made with. */
export interface App {
  root: HTMLElement;
  store: Store;
  data: Data;
  /** Aborted where the page is taken away: what listens outside of its root, listens until then. */
  ended: AbortSignal;
  /** A text of the page in the chosen language, with {names} filled in. */
  say(name: string, values?: Record<string, string | number>): string;
  /** Show an error to the reader; one that was aborted is none. always: also where it was dismissed a moment ago. */
  report(error: unknown, always?: boolean): void;
  /** What is pointed at, anywhere: the views shade and mark it. It is no state. */
  pointer: Pointer;
  /** The units of rows and columns of the chosen layer's map, words or tokens as the map shows them. */
  sides(): { rows: Units; keys: Units; words: boolean };
  /** How the map shows its head: as the state says, as far as that is there. */
  shown(): Shown;
  /** Whether the page is dark now. */
  dark(): boolean;
}

export interface Pointed {
  /** Token numbers; -1 where nothing is pointed at on that side. */
  query: number;
  key: number;
}

export interface Pointer {
  get(): Pointed;
  set(pointed: Pointed, from: string): void;
  subscribe(listener: (pointed: Pointed, from: string) => void): () => void;
}
