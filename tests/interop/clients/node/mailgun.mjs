// mailgun.js: send one message with everything, a batch and a MIME message; read back events, the message and domains.
// Arguments: URL, key, domain, token, how (form-data, native or fetch). Prints JSON.
import FormDataPackage from "form-data";
import Mailgun from "mailgun.js";

const [url, key, domain, token, how] = process.argv.slice(2);
const Form = how === "form-data" ? FormDataPackage : globalThis.FormData;
const mg = new Mailgun(Form).client({ username: "api", key, url, useFetch: how === "fetch" });
const file = (text, filename, contentType) => ({ data: Buffer.from(text), filename, contentType });

const message = await mg.messages.create(domain, {
  from: `Jürgen Größe <app@${domain}>`,
  to: [`Änne <to-${token}@away.test>`, `second-${token}@away.test`],
  cc: `cc-${token}@away.test`,
  bcc: `bcc-${token}@away.test`,
  subject: `Grüße ✓ ${token}`,
  text: "text: ü",
  html: '<p>html: ü <img src="cid:logo.png"></p>',
  attachment: [file("größe", "größe, \"x\".txt", "text/plain; charset=utf-8")],
  inline: [file("\x89PNG", "logo.png", "image/png")],
  "h:X-Own": "Wert ü",
  "h:Reply-To": `help@${domain}`,
  "v:order": token,
  "o:tag": ["orders", "mail"],
  "o:testmode": "no",
});
const batch = await mg.messages.create(domain, {
  from: `app@${domain}`,
  to: [`ann-${token}@away.test`, `bob-${token}@away.test`],
  subject: `For %recipient.name% ${token}`,
  text: "Hello %recipient.name%",
  "recipient-variables": JSON.stringify({
    [`ann-${token}@away.test`]: { name: "Ann" },
    [`bob-${token}@away.test`]: { name: "Bob ü" },
  }),
});
const whole = `From: app@${domain}\r\nTo: list@away.test\r\nSubject: mime ${token}\r\n\r\nbody\r\n`;
const mime = [];
for (const each of [whole, Buffer.from(whole)]) {
  mime.push(await mg.messages.create(domain, { to: [`mime-${token}@away.test`], message: each }));
}

const wrong = await mg.messages
  .create("unknown.test", { from: `app@${domain}`, to: "a@away.test", text: "x" })
  .catch((error) => ({ status: error.status, details: error.details }));

let events = [];
for (let tries = 0; tries < 100 && !events.some((each) => each.event === "delivered"); tries += 1) {
  events = [];
  let page = await mg.events.get(domain, { "message-id": message.id.slice(1, -1), ascending: "yes", limit: 2 });
  while (page.items.length) {
    events.push(...page.items);
    page = await mg.events.get(domain, { page: page.pages.next.page });
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
}
const domains = await mg.domains.list();
const one = await mg.domains.get(domain);
console.log(
  JSON.stringify({
    message,
    batch,
    mime,
    wrong,
    events: events.map((each) => [each.event, each.recipient, each["user-variables"].order]),
    domains: domains.map((each) => each.name),
    records: one.sending_dns_records.map((each) => each.name),
  }),
);
