// Answers what the Python tests ask, to compare it with the core and with Python: one JSON document in, one out.
//   node test/driver.js TASK < arguments.json
import { readFileSync } from "node:fs";
import { Arrivals } from "../src/arrivals.js";
import { Bundle } from "../src/bundle.js";
import { Controller } from "../src/controller.js";
import { stemInput } from "../src/inputs.js";

/** @param {string} text of bytes in base64 @returns {Uint8Array<ArrayBuffer>} */
const bytesOf = (text) => new Uint8Array(Buffer.from(text, "base64"));

/** @type {Record<string, (cases: any) => unknown>} */
const TASKS = {
  /** For each history: what the controller says after every step of it. */
  controller: (histories) =>
    histories.map(
      /** @param {any} history */ ({ macs, partMs, contention, steps }) => {
        const controller = new Controller(macs, { partMs, contention });
        return steps.map(
          /** @param {any} step */ ({ what, told, part, busy }) => {
            /** @type {any} */ (controller)[what](...told);
            const { mandatoryMs, requestsToLearn } = controller;
            return [controller.predictedMs(part, busy), controller.marginMs(0.05), mandatoryMs, requestsToLearn];
          },
        );
      },
    ),

  /** For each history: how much earlier than its deadline each of its requests leaves. */
  arrivals: (histories) =>
    histories.map(
      /** @param {any} history */ ({ mandatoryMs, requests }) => {
        const arrivals = new Arrivals();
        return requests.map(
          /** @param {any} request */ ({ nowMs, deadlineMs, endedMs }) => {
            if (deadlineMs === null) arrivals.cameWithoutDeadline();
            else arrivals.came(nowMs, deadlineMs, endedMs, mandatoryMs ?? NaN);
            return arrivals.earlierMs(mandatoryMs ?? NaN);
          },
        );
      },
    ),

  /** For each zip's path and trusted keys: what it refuses, or the files that it read. */
  bundles: async (cases) => {
    const answers = [];
    for (const { path, trustedKeys } of cases) {
      try {
        const { manifest, signedBy } = await Bundle.open(new Uint8Array(readFileSync(path)), { trustedKeys });
        answers.push({ name: manifest.name, branches: manifest.branches.length, labels: manifest.labels, signedBy });
      } catch (error) {
        const { name, message } = /** @type {Error} */ (error);
        answers.push({ error: name, message });
      }
    }
    return answers;
  },

  /** For each zip's path: what it refuses of its golden data, or their shapes. */
  golden: async (paths) => {
    const answers = [];
    for (const path of paths) {
      const bundle = await Bundle.open(new Uint8Array(readFileSync(path)));
      try {
        const { inputs, branchOutputs, labels } = await bundle.golden();
        answers.push({ inputs: inputs.shape, outputs: branchOutputs.shape, labels });
      } catch (error) {
        const { name, message } = /** @type {Error} */ (error);
        answers.push({ error: name, message });
      }
    }
    return answers;
  },

  /** For each image or tensor: what the stem reads. */
  inputs: (cases) =>
    cases.map(
      /** @param {any} one */ ({ spec, pixels, path, tensor, height, width, channels }) => {
        const value = tensor
          ? new Float32Array(bytesOf(tensor).buffer)
          : { data: path ? new Uint8Array(readFileSync(path)) : bytesOf(pixels), height, width, channels };
        return Buffer.from(stemInput(value, spec).buffer).toString("base64");
      },
    ),
};

const answer = await TASKS[process.argv[2]](JSON.parse(readFileSync(0, "utf8")));
process.stdout.write(JSON.stringify(answer));
