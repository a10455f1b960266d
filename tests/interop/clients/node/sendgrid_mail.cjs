// @sendgrid/mail: send one message with everything, one to each of two, and what is refused; read scopes and a batch.
// Arguments: URL, key, domain, token. Prints JSON.
const mail = require("@sendgrid/mail");
const client = require("@sendgrid/client");

const [url, key, domain, token] = process.argv.slice(2);
for (const each of [mail.client, client]) {
  each.setApiKey(key);
  each.setDefaultRequest("baseUrl", url); // after setApiKey, which sets it, too
}
const base64 = (text, encoding) => Buffer.from(text, encoding).toString("base64");

async function all() {
  const [sent] = await mail.send({
    from: { email: `app@${domain}`, name: "Jürgen Größe" },
    to: [{ email: `to-${token}@away.test`, name: "Änne, die Erste" }, `second-${token}@away.test`],
    cc: `cc-${token}@away.test`,
    bcc: `bcc-${token}@away.test`,
    replyTo: `help@${domain}`,
    subject: `Grüße ✓ ${token}`,
    text: "text: ü",
    html: '<p>html: ü <img src="cid:logo"></p>',
    attachments: [
      { content: base64("größe"), filename: "größe.txt", type: "text/plain", disposition: "attachment" },
      { content: base64("\x89PNG", "latin1"), filename: "logo.png", type: "image/png", disposition: "inline", content_id: "logo" },
    ],
    headers: { "X-Own": "Wert ü" },
    categories: ["orders", "mail"],
    customArgs: { order: token },
    trackingSettings: { clickTracking: { enable: false, enableText: false }, openTracking: { enable: false } },
  });
  const [several] = await mail.sendMultiple({
    from: `app@${domain}`,
    to: [`ann-${token}@away.test`, `bob-${token}@away.test`],
    subject: `For {{who}} ${token}`,
    text: "Hello {{who}}",
    substitutions: { who: "ü" },
  });
  const refused = await mail
    .send({ from: `app@${domain}`, to: "nobody", subject: "s", text: "t" })
    .catch((error) => ({ code: error.code, errors: error.response.body.errors }));
  const [scopes] = await client.request({ method: "GET", url: "/v3/scopes" });
  const [batch] = await client.request({ method: "POST", url: "/v3/mail/batch" });
  const id = batch.body.batch_id;
  const [paused] = await client.request({ method: "POST", url: "/v3/user/scheduled_sends", body: { batch_id: id, status: "pause" } });
  const [freed] = await client.request({ method: "DELETE", url: `/v3/user/scheduled_sends/${id}` });
  console.log(
    JSON.stringify({
      sent: [sent.statusCode, sent.headers["x-message-id"]],
      several: several.statusCode,
      refused,
      scopes: scopes.body.scopes,
      paused: [paused.statusCode, paused.body.status],
      freed: freed.statusCode,
    }),
  );
}

all().catch((error) => {
  console.error(error, error.response && error.response.body);
  process.exitCode = 1;
});
