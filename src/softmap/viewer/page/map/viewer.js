// OpenSeadragon, set up for weights: crisp, without its own buttons, keys and images, with short movements.

import OpenSeadragon from "openseadragon";
import { MapDrawer } from "./drawer.js";

const SHORT = 0.22; // seconds of a movement
const HELD = 120; // tiles, 0.4 MB each

/**
 * @param {HTMLElement} element
 * @param {{colours: () => Uint32Array, drawn: () => void}} drawing the colours of all 16-bit numbers; called when all is drawn
 * @returns {OpenSeadragon.Viewer}
 */
export function createViewer(element, drawing) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const gestures = { clickToZoom: false, dblClickToZoom: true, dblClickDragToZoom: false, flickEnabled: false, pinchToZoom: true };
  const options = {
    element,
    drawer: MapDrawer,
    drawerOptions: { custom: drawing },
    showNavigationControl: false,
    keyboardNavEnabled: false,
    tabIndex: "",
    animationTime: still ? 0 : SHORT,
    springStiffness: 9,
    zoomPerScroll: 1.25,
    zoomPerClick: 3,
    minScrollDeltaTime: 0,
    constrainDuringPan: true,
    immediateRender: true,
    maxTilesPerFrame: 16,
    minPixelRatio: 1 - 1e-9, // no pixel of a tile is smaller than one of the screen: none is left out
    imageLoaderLimit: 0, // the source has a queue of its own
    timeout: 2 ** 31 - 1,
    maxImageCacheCount: HELD,
    silenceMultiImageWarnings: true,
    gestureSettingsMouse: gestures,
    gestureSettingsTouch: gestures,
    gestureSettingsPen: gestures,
    gestureSettingsUnknown: gestures,
  };
  return OpenSeadragon(/** @type {any} */ (options));
}
