// resend: send one email with everything, twice with one key, a batch, and one that is scheduled, moved and cancelled;
// read back; be told what is wrong. Arguments: URL, key, domain, token. Prints JSON.
import { Resend } from "resend";

const [baseUrl, key, domain, token] = process.argv.slice(2);
const resend = new Resend(key, { baseUrl });
const email = {
  from: `Jürgen Größe <app@${domain}>`,
  to: [`"Änne, die Erste" <to-${token}@away.test>`, `second-${token}@away.test`],
  cc: `cc-${token}@away.test`,
  bcc: `bcc-${token}@away.test`,
  replyTo: `help@${domain}`,
  subject: `Grüße ✓ ${token}`,
  text: "text: ü",
  html: '<p>html: ü <img src="cid:logo"></p>',
  headers: { "X-Own": "Wert ü" },
  tags: [{ name: "order", value: token }],
  attachments: [
    { filename: "größe.txt", content: Buffer.from("größe") },
    { filename: "logo.png", content: Buffer.from("\x89PNG", "latin1"), contentType: "image/png", contentId: "logo" },
  ],
};
const short = { from: `app@${domain}`, to: `ann-${token}@away.test`, subject: token, text: "text" };
const done = ({ data, error }) => {
  if (error) throw new Error(JSON.stringify(error));
  return data;
};

const sent = done(await resend.emails.send(email, { idempotencyKey: token })).id;
const again = done(await resend.emails.send(email, { idempotencyKey: token })).id;
const shown = done(await resend.emails.get(sent));
const listed = done(await resend.emails.list({ limit: 100 })).data;
const batch = done(await resend.batch.send([short, short])).data;
const some = done(await resend.batch.send([short, { ...short, to: "x" }], { batchValidation: "permissive" }));
const day = (number) => new Date(Date.now() + number * 86_400_000).toISOString();
const scheduled = done(await resend.emails.send({ ...short, scheduledAt: day(1) })).id;
const moved = done(await resend.emails.update({ id: scheduled, scheduledAt: day(2) })).id;
const cancelled = done(await resend.emails.cancel(scheduled)).id;
const last = done(await resend.emails.get(scheduled)).last_event;
const refused = (await resend.emails.send({ ...short, to: "x" })).error;
const wrong = (await new Resend("re_wrong", { baseUrl }).emails.send(short)).error;
console.log(
  JSON.stringify({
    sent,
    again,
    shown: [shown.id, shown.subject],
    listed: listed.map((each) => each.id),
    batch: batch.length,
    some: [some.data.length, some.errors.map((each) => each.index)],
    scheduled,
    changed: [moved, cancelled, last],
    refused: [refused.statusCode, refused.name],
    wrong: [wrong.statusCode, wrong.name],
  }),
);
