// Work that is done a few at a time, the most wanted first. What nobody wants any more is ended, and waits until it is
// wanted again: a tile that was scrolled past costs no more than a place in the line.

/**
 * @template Job, Answer
 * @param {object} how
 * @param {(job: Job, signal: AbortSignal) => Promise<Answer>} how.run
 * @param {(job: Job) => number | null} how.rank the smaller the sooner; null: not wanted now
 * @param {(job: Job, answer: Answer) => void} how.done
 * @param {(error: unknown) => void} how.failed
 * @param {() => void} how.changed others are awaited, or none any more
 * @param {number} how.limit that run at a time
 * @param {number} how.rest ms for which what failed is not tried again while it is wanted all the time
 */
export function createQueue({ run, rank, done, failed, changed, limit, rest }) {
  /** @type {Set<Job>} */
  const waiting = new Set();
  /** @type {Map<Job, AbortController>} */
  const running = new Map();
  /** @type {Map<Job, number>} */
  const refused = new Map(); // and since when; tried again when they are seen again, or looked at for a while

  /** @param {Job} job */
  function stop(job) {
    running.get(job)?.abort();
    running.delete(job);
  }

  function update() {
    for (const job of [...running.keys()]) {
      if (rank(job) !== null) continue;
      stop(job);
      waiting.add(job);
    }
    for (const [job, since] of refused) {
      if (rank(job) !== null && performance.now() - since < rest) continue;
      refused.delete(job);
      waiting.add(job);
    }
    const wanted = [...waiting].map((job) => ({ job, rank: rank(job) })).filter((each) => each.rank !== null);
    wanted.sort((one, other) => Number(one.rank) - Number(other.rank));
    for (const { job } of wanted.slice(0, Math.max(0, limit - running.size))) void start(job);
    changed();
  }

  /** @param {Job} job */
  async function start(job) {
    const control = new AbortController();
    waiting.delete(job);
    running.set(job, control);
    /** @type {() => void} */
    let tell = () => {};
    try {
      const answer = await run(job, control.signal);
      tell = () => done(job, answer);
    } catch (error) {
      tell = () => {
        refused.set(job, performance.now());
        failed(error);
      };
    }
    if (control.signal.aborted) return;
    running.delete(job);
    tell();
    update();
  }

  return {
    /** @param {Job} job */
    add(job) {
      waiting.add(job);
      update();
    },
    /** @param {Job} job */
    drop(job) {
      waiting.delete(job);
      refused.delete(job);
      stop(job);
      update();
    },
    update,
    /** End all of it. @returns {Job[]} what was not done */
    close() {
      const left = [...running.keys(), ...waiting, ...refused.keys()];
      for (const job of left) stop(job);
      waiting.clear();
      refused.clear();
      return left;
    },
    /** Whether any that is not here is like that. @param {(job: Job) => boolean} like */
    some: (like) => [...running.keys(), ...waiting].some(like),
    /** Whether some that are in sight could not be had. */
    lacks: () => refused.size > 0,
    /** How many are wanted and not here. */
    awaited: () => running.size + [...waiting].filter((job) => rank(job) !== null).length,
  };
}
