// postmark: send one message with everything and a batch; read back; be told what is wrong.
// Arguments: host, key, domain, token. Prints JSON.
const postmark = require("postmark");

const [requestHost, key, domain, token] = process.argv.slice(2);
const options = { requestHost, useHttps: false };
const client = new postmark.ServerClient(key, options);
const base64 = (text, encoding) => Buffer.from(text, encoding).toString("base64");

async function main() {
  const sent = await client.sendEmail({
    From: `Jürgen Größe <app@${domain}>`,
    To: `"Änne, die Erste" <to-${token}@away.test>, second-${token}@away.test`,
    Cc: `cc-${token}@away.test`,
    Bcc: `bcc-${token}@away.test`,
    ReplyTo: `help@${domain}`,
    Subject: `Grüße ✓ ${token}`,
    TextBody: "text: ü",
    HtmlBody: '<p>html: ü <img src="cid:logo"></p>',
    Headers: [{ Name: "X-Own", Value: "Wert ü" }],
    Tag: token,
    Metadata: { order: token },
    TrackOpens: false,
    MessageStream: "outbound",
    Attachments: [
      new postmark.Models.Attachment("größe.txt", base64("größe"), "text/plain"),
      new postmark.Models.Attachment("logo.png", base64("\x89PNG", "latin1"), "image/png", "cid:logo"),
    ],
  });
  const mail = { From: `app@${domain}`, Subject: token, TextBody: "text" };
  const batch = await client.sendEmailBatch([
    { ...mail, To: `ann-${token}@away.test` },
    { ...mail, To: "x" },
  ]);
  const { Messages } = await client.getOutboundMessages({ tag: token, fromEmail: `app@${domain}`, fromDate: "2026-01-01" });
  const details = await client.getOutboundMessageDetails(sent.MessageID);
  const refused = await client.sendEmail({ ...mail, To: "x" }).catch((error) => error);
  const wrong = await new postmark.ServerClient("wrong", options).sendEmail(mail).catch((error) => error);
  console.log(
    JSON.stringify({
      sent,
      batch: batch.map((each) => each.ErrorCode),
      listed: Messages.map((each) => each.MessageID),
      details: [details.MessageID, details.Metadata, details.Subject],
      refused: [refused.name, refused.code, refused.statusCode, refused.message],
      wrong: [wrong.name, wrong.code, wrong.statusCode],
    }),
  );
}

main();
