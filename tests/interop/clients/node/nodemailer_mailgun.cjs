// nodemailer with nodemailer-mailgun-transport: send one message with everything. Arguments: port, key, domain, token.
const nodemailer = require("nodemailer");
const transport = require("nodemailer-mailgun-transport");

const [port, key, domain, token] = process.argv.slice(2);
const auth = { api_key: key, domain };
const mailer = nodemailer.createTransport(transport({ auth, host: "127.0.0.1", protocol: "http:", port }));
mailer
  .sendMail({
    from: { name: "Jürgen Größe", address: `app@${domain}` },
    to: [{ name: "Änne", address: `to-${token}@away.test` }, `second-${token}@away.test`],
    cc: `cc-${token}@away.test`,
    bcc: `bcc-${token}@away.test`,
    replyTo: `help@${domain}`,
    subject: `Grüße ✓ ${token}`,
    text: "text: ü",
    html: '<p>html: ü <img src="cid:logo.png"></p>',
    attachments: [
      { filename: "größe.txt", content: "größe", contentType: "text/plain; charset=utf-8" },
      { filename: "other.png", content: Buffer.from("\x89PNG"), cid: "logo.png" },
    ],
    "h:X-Own": "Wert ü",
    "v:order": token,
    "o:tag": ["orders", "mail"],
    "o:campaign": "none",
  })
  .then((sent) => console.log(JSON.stringify({ id: sent.id, messageId: sent.messageId, message: sent.message })))
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
