// nodemailer with nodemailer-sendgrid: send one message with everything. Arguments: URL, key, domain, token.
const nodemailer = require("nodemailer");
const transport = require("nodemailer-sendgrid");
const path = require("node:path");
// the @sendgrid/mail that it brings itself, of an earlier version
const bundled = require(require.resolve("@sendgrid/mail", { paths: [path.dirname(require.resolve("nodemailer-sendgrid"))] }));

const [url, key, domain, token] = process.argv.slice(2);
const mailer = nodemailer.createTransport(transport({ apiKey: key }));
bundled.client.setDefaultRequest("baseUrl", url);
const base64 = (text, encoding) => Buffer.from(text, encoding).toString("base64"); // which it leaves to its users

mailer
  .sendMail({
    from: { name: "Jürgen Größe", address: `app@${domain}` },
    to: [{ name: "Änne", address: `to-${token}@away.test` }, `second-${token}@away.test`],
    cc: `cc-${token}@away.test`,
    bcc: `bcc-${token}@away.test`,
    replyTo: `help@${domain}`,
    subject: `Grüße ✓ ${token}`,
    text: "text: ü",
    html: '<p>html: ü <img src="cid:logo"></p>',
    attachments: [
      { filename: "größe.txt", content: base64("größe"), contentType: "text/plain" },
      { filename: "logo.png", content: base64("\x89PNG", "latin1"), contentType: "image/png", cid: "logo" },
    ],
    headers: { "X-Own": "Wert ü" },
    customArgs: { order: token },
    categories: ["orders", "mail"],
  })
  .then(([sent]) => console.log(JSON.stringify({ sent: [sent.statusCode, sent.headers["x-message-id"]] })))
  .catch((error) => {
    console.error(error, error.response && error.response.body);
    process.exitCode = 1;
  });
