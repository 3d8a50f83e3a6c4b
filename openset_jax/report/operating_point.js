// Computes the metrics of an operating point that the reader chooses, as `openset_jax.openset` does. Does not touch the page.
// An operating point is {threshold, prior, costs, best}; `best` is the class of each image if it is accepted.
"use strict";
function makeOperatingPoints(data) {
  const bytes = (text) => {
    const raw = atob(text), result = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) result[i] = raw.charCodeAt(i);
    return result.buffer;
  };
  const K = data.classes.length, N = data.images, NONE = K, ROWS = K + data.kinds.length;
  const truth = new Int32Array(bytes(data.truth)), score = new Float64Array(bytes(data.score));
  const savedClass = new Int32Array(bytes(data.known_class));
  const posterior = data.posterior && new Float64Array(bytes(data.posterior));
  const count = new Int32Array(ROWS); // images of each row
  truth.forEach((t) => count[t]++);
  const order = Int32Array.from(truth.keys()).sort((a, b) => score[a] - score[b] || 0);
  const steps = [-Infinity]; // all thresholds with different decisions: -Infinity accepts no image
  for (const i of order) if (score[i] > steps[steps.length - 1]) steps.push(score[i]);

  const sum = (row) => row.reduce((a, b) => a + b, 0);
  const share = (hits, all) => (all ? hits / all : null);
  const same = (a, b) => a.every((x, i) => x === b[i]);

  // `posterior.correct_prior`, then `thresholds.cheapest_class`. Rows are not normalised, which does not change the order.
  // For the saved prior and costs, the classes are those that Python computed.
  function cheapestClasses(prior, costs) {
    if (!posterior || (same(prior, data.prior) && same(costs.flat(), data.costs.flat()))) return savedClass;
    const ratio = prior.map((p, k) => (data.fitted_prior[k] > 0 ? p / data.fitted_prior[k] : 0));
    const beyond = costs.map((row) => row.slice(0, K).map((c) => c - Math.min(...row.slice(0, K))));
    const likeliest = costs.named && costs.named[1] > 0; // the likeliest class costs least: no matrix product is needed
    const result = new Int32Array(N), p = new Float64Array(K + 1);
    for (let i = 0; i < N; i++) {
      let total = 0;
      for (let k = 0; k <= K; k++) total += p[k] = posterior[i * (K + 1) + k] * ratio[k];
      if (total === 0) p.set(prior);
      let least = Infinity;
      for (let k = 0; k < K; k++) {
        let cost = -p[k];
        if (!likeliest) {
          cost = 0;
          for (let y = 0; y <= K; y++) cost += p[y] * beyond[y][k];
        }
        if (cost < least) [least, result[i]] = [cost, k];
      }
    }
    return result;
  }

  // Counts of `thresholds.decide`. Rows are the truth: K classes, then the kinds. Columns are the answer, "none" last.
  function confusion({ threshold, best }) {
    const table = Array.from({ length: ROWS }, () => new Array(K + 1).fill(0));
    for (let i = 0; i < N; i++) table[truth[i]][score[i] <= threshold ? best[i] : NONE]++;
    return table;
  }

  // `evaluation.operating_point`
  function operatingPoint(table, at) {
    const known = table.slice(0, K), all = sum(known.map(sum));
    const right = sum(known.map((row, k) => row[k])), accepted = sum(known.map((row) => sum(row) - row[NONE]));
    const point = {
      known_recall: share(accepted, all),
      known_accuracy: share(right, all),
      accuracy_of_accepted_knowns: share(right, accepted),
    };
    data.kinds.forEach((kind, j) => {
      const row = table[K + j];
      point["rejected." + kind] = share(row[NONE], sum(row));
      point["expected_cost." + kind] = expectedCost([...known, row], at);
    });
    return point;
  }

  // `intervals.expected_cost`
  function expectedCost(table, { prior, costs }) {
    let total = 0;
    for (let y = 0; y <= K; y++) {
      if (!(prior[y] > 0)) continue;
      const images = sum(table[y]);
      if (!images) return null;
      total += (prior[y] * sum(table[y].map((n, answer) => n * costs[y][answer]))) / images;
    }
    return total;
  }

  // The expected cost with kind j at about 500 thresholds. Starts with all images rejected and accepts them by score.
  function costCurve(j, { prior, costs, best }) {
    const images = (y) => (y === NONE ? count[K + j] : count[y]);
    const x = [], y = [], every = N / 500;
    let total = 0, next = 0;
    for (let t = 0; t <= K; t++) {
      if (prior[t] > 0 && !images(t)) return { x, y };
      total += prior[t] * costs[t][NONE];
    }
    for (let rank = 0; rank < N; rank++) {
      const i = order[rank], t = Math.min(truth[i], NONE), last = rank === N - 1;
      if ((t < NONE || truth[i] === K + j) && prior[t] > 0) {
        total += ((costs[t][best[i]] - costs[t][NONE]) * prior[t]) / images(t);
      }
      if (last || (rank >= next && score[order[rank + 1]] > score[i])) {
        x.push(score[i]);
        y.push(total);
        next = rank + every;
      }
    }
    return { x, y };
  }

  return { K, NONE, steps, sum, same, cheapestClasses, confusion, operatingPoint, costCurve };
}
