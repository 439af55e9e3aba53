// Pixels of whole matrices in an exported file: overviews of some heads, thumbnails of all. What there is of a head whose
// q and k are not held.

/** @typedef {import("./types").How} How */
/** @typedef {import("./types").Sinks} Sinks */
/** @typedef {import("./file").Piece} Piece */

/**
 * @param {ReturnType<typeof import("./file").createPieces>} pieces
 * @param {object} of
 * @param {Record<string, import("./held").LayerIndex>} of.layers
 * @param {(number: number) => import("./types").LayerInfo} of.infoOf
 */
export function createLevels(pieces, { layers, infoOf }) {
  const named = pieces.names().map((name) => name.split("/"));
  const levels = named.filter(([kind]) => kind === "level").map(([, head, how, sinks, zoom]) => ({ head, how, sinks, zoom: Number(zoom) }));
  const parts = new Set(named.filter(([kind]) => kind === "level" || kind === "row").map(([, head]) => head));

  /**
   * How much of a head is held.
   * @param {number} layer
   * @param {number} head
   * @returns {import("./types").Extent}
   */
  function extent(layer, head) {
    const name = `${layer}.${head}`;
    if (pieces.has(`q/${name}`)) return "whole";
    if (infoOf(layer).thumb === 0 && pieces.has(`thumbs/${layer}`)) return "weights";
    return parts.has(name) ? "part" : pieces.has(`thumbs/${layer}`) ? "thumb" : "none";
  }

  /**
   * The finest zoom of which there are pixels like these; null where there are none.
   * @param {number} layer
   * @param {number} head
   * @param {How} how
   * @param {Sinks} sinks
   */
  function finest(layer, head, how, sinks) {
    const own = levels.filter((level) => level.head === `${layer}.${head}` && level.how === how && level.sinks === sinks);
    if (own.length) return Math.min(...own.map(({ zoom }) => zoom));
    return isOfThumbs(how, sinks) && pieces.has(`thumbs/${layer}`) ? infoOf(layer).thumb : null;
  }

  /**
   * A head's thumbnail; null where it is not held.
   * @param {number} layer
   * @param {number} head
   */
  async function thumb(layer, head) {
    return pieces.has(`thumbs/${layer}`) ? thumbOf(await pieces.read(`thumbs/${layer}`), head) : null;
  }

  return {
    extent,
    /**
     * What the map can show of a head whose weights can't be had; of several what is most like what is wanted.
     * @param {number} layer
     * @param {number} head
     * @param {How} how
     * @param {Sinks} sinks
     * @returns {import("./types").Shown | null} null where they can, and where nothing is held
     */
    preview(layer, head, how, sinks) {
      const all = extent(layer, head);
      if (all === "whole" || (all === "weights" && sinks !== "rescaled")) return null;
      /** @type {[How, Sinks][]} */
      const likely = [[how, sinks], [how, "shown"], ["max", "shown"]];
      for (const [how, sinks] of likely) {
        const zoom = finest(layer, head, how, sinks);
        if (zoom !== null) return { how, sinks, finest: zoom, preview: true, able: !layers[layer].why };
      }
      return null;
    },
    /**
     * The finest zoom of a head's overview, and what it shows.
     * @param {string} name
     */
    overview(name) {
      const own = levels.filter(({ head }) => head === name);
      if (!own.length) return null;
      return { zoom: Math.min(...own.map(({ zoom }) => zoom)), hows: [...new Set(own.map(({ how }) => how))] };
    },
    /**
     * All pixels of a zoom, if they are held: of an overview, or of a thumbnail where the head is not whole.
     * @param {number} layer
     * @param {number} head
     * @param {How} how
     * @param {Sinks} sinks
     * @param {number} zoom
     */
    async level(layer, head, how, sinks, zoom) {
      const name = `level/${layer}.${head}/${how}/${sinks}/${zoom}`;
      if (pieces.has(name)) return pieces.read(name);
      const asThumb = isOfThumbs(how, sinks) && zoom === infoOf(layer).thumb && extent(layer, head) !== "whole";
      return asThumb ? thumb(layer, head) : null;
    },
    thumb,
  };
}

/** Whether thumbnails are such pixels. @param {How} how @param {Sinks} sinks */
const isOfThumbs = (how, sinks) => how === "max" && sinks === "shown";

/**
 * One of a layer's thumbnails.
 * @param {Piece} thumbs
 * @param {number} head
 * @returns {Piece}
 */
function thumbOf({ dtype, shape: [, height, width], data }, head) {
  const size = height * width;
  return { dtype, shape: [height, width], data: data.subarray(head * size, (head + 1) * size) };
}
