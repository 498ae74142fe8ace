// BullMQ on Node: the argument and the answer are as in pace.py.
import { Queue, Worker } from "bullmq";

const wish = JSON.parse(process.argv[2]);
const { hostname, port, pathname } = new URL(wish.url);
const connection = { host: hostname, port: Number(port), db: Number(pathname.slice(1) || 0), maxRetriesPerRequest: null };
const queue = new Queue("noop", { connection });
const say = (figures) => console.log(JSON.stringify(figures));
const seconds = () => performance.now() / 1000;
const jobs = (first, end) => Array.from({ length: end - first }, (_, i) => ({ name: "noop", data: { number: first + i } }));

async function addInBatches(count) {
  const beganAt = seconds();
  for (let first = 0; first < count; first += 1000) await queue.addBulk(jobs(first, Math.min(first + 1000, count)));
  return count / (seconds() - beganAt);
}

async function addByCallers(count) {
  await queue.add("noop", { number: 0 });
  const beganAt = seconds();
  const caller = async (first) => {
    for (let number = first; number < count; number += 100) await queue.add("noop", { number });
  };
  await Promise.all(Array.from({ length: 100 }, (_, first) => caller(first)));
  return count / (seconds() - beganAt);
}

async function drain(count) {
  await addInBatches(count);
  let runs = 0, warmAt = 0, end;
  const ended = new Promise((resolve) => (end = resolve));
  const warm = Math.floor(count / 10);
  const noop = async (job) => {
    runs += 1;
    if (runs === warm) warmAt = seconds();
    else if (runs === count) end((count - warm) / (seconds() - warmAt));
    return job.data.number;
  };
  const worker = new Worker("noop", noop, { connection, concurrency: wish.concurrency ?? 100 });
  worker.on("error", (error) => console.error(error.message));
  const rate = await ended;
  await worker.close(true);
  return rate;
}

setTimeout(() => process.exit(1), 120_000).unref();
if (wish.do === "send") say({ send_per_s: await addByCallers(wish.count), batch_per_s: await addInBatches(wish.count) });
else say({ drain_per_s: await drain(wish.count) });
await queue.close();
process.exit(0);
