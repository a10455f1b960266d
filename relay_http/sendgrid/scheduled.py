"""/v3/mail/batch and /v3/user/scheduled_sends: what was sent under one id, paused or cancelled before it goes out.

What is said of a batch counts from the answer on (mta.queue.batches). A message that is cancelled ends when its time to
go out comes, as the vendor's does; until then the word can be taken back.
"""

import falcon.asgi

from mta.accounts.keys import ApiKey
from mta.accounts.tenants import AccountError
from mta.queue import actions, batches
from mta.queue.actions import Standing
from mta.queue.batches import Word
from mta.queue.standing import find
from mta.queue.views import Search, Status
from relay_http.access import live
from relay_http.answer import put_json
from relay_http.body import Request
from relay_http.door import Door
from relay_http.fields import Fields, Problems
from relay_http.problem import Problem, Refusal, Why, invalid, not_found
from relay_http.sendgrid.errors import SENDGRID

_PAGE = 500  # messages whose holds are looked at together
_WAITING = (Status.SCHEDULED, Status.QUEUED, Status.DEFERRED)
_WORDS = (Word.PAUSE.value, Word.CANCEL.value)
_NO_BATCH = "invalid batch id"


class MailBatch:
    """The resource of mail/batch."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Make an id for a batch."""
        key = await self._door.enter(req, SENDGRID, "mail.batch.create")
        put_json(resp, {"batch_id": batches.new_batch(key.tenant, self._door.clock.now())}, 201)

    async def on_get_one(self, req: Request, resp: falcon.asgi.Response, batch: str) -> None:
        """Say that an id is one."""
        key = await self._door.enter(req, SENDGRID, "mail.batch.read")
        _check(self._door, key, batch)
        put_json(resp, {"batch_id": batch})


class ScheduledSends:
    """The resource of user/scheduled_sends."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List the batches that are paused or cancelled."""
        key = await self._door.enter(req, SENDGRID, "user.scheduled_sends.read")
        found = await batches.list_all(self._door.spool, key.tenant)
        put_json(resp, [_shown(each.id, each.word) for each in found])

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Pause or cancel a batch of which nothing is said yet."""
        door = self._door
        key = await door.enter(req, SENDGRID, "user.scheduled_sends.create")
        with door.budget.hold() as held:
            batch, word = await door.json(req, held, _read_batch)
        _check(door, key, batch)
        if await batches.said(door.spool, key.tenant, batch) in (Word.PAUSE, Word.CANCEL):
            raise invalid("A status is set for this batch id already: change it with PATCH.", "batch_id")
        await self._say(req, key, batch, word)
        put_json(resp, _shown(batch, word), 201)

    async def on_get_one(self, req: Request, resp: falcon.asgi.Response, batch: str) -> None:
        """Show a batch, as a list of one, or of none of which nothing is said."""
        key = await self._door.enter(req, SENDGRID, "user.scheduled_sends.read")
        word = await batches.said(self._door.spool, key.tenant, batch)
        put_json(resp, [_shown(batch, word)] if word in (Word.PAUSE, Word.CANCEL) else [])

    async def on_patch_one(self, req: Request, resp: falcon.asgi.Response, batch: str) -> None:
        """Pause instead of cancelling, or the other way round."""
        door = self._door
        key = await door.enter(req, SENDGRID, "user.scheduled_sends.update")
        with door.budget.hold() as held:
            word = await door.json(req, held, _read_word)
        await self._check_spoken_of(key, batch)
        await self._say(req, key, batch, word)
        if word is Word.CANCEL:
            await self._let_go(key, batch)
        resp.status = 204

    async def on_delete_one(self, req: Request, resp: falcon.asgi.Response, batch: str) -> None:
        """Take back what was said of a batch, and release what was held for it."""
        key = await self._door.enter(req, SENDGRID, "user.scheduled_sends.delete")
        await self._check_spoken_of(key, batch)
        await self._say(req, key, batch, Word.GO)
        await self._let_go(key, batch)
        await batches.forget(self._door.spool, key.tenant, batch)
        resp.status = 204

    async def _check_spoken_of(self, key: ApiKey, batch: str) -> None:
        """Refuse with 404 if nothing is said of a batch.

        Of one that was let go in part, before a crash or while the views were behind, it can be said again: whether it
        was paused before, nothing tells any more.
        """
        if await batches.said(self._door.spool, key.tenant, batch) is None:
            raise not_found()

    async def _say(self, req: Request, key: ApiKey, batch: str, word: Word) -> None:
        live(key)
        try:
            async with self._door.audit.doing(req, f"batch.{word}", key.tenant, batch):
                await batches.say(self._door.spool, key.tenant, batch, word, self._door.clock.now())
        except AccountError as error:
            raise invalid(str(error), "batch_id") from None

    async def _let_go(self, key: ApiKey, batch: str) -> None:
        """Release what came to its time while the batch was paused."""
        desk, cursor = self._door.desk, ""
        search = Search(batch=batch, statuses=_WAITING)
        await self._door.views.caught_up()  # what is not found stays held
        while True:
            page = await self._door.views.messages(key.tenant, search, limit=_PAGE, cursor=cursor)
            found: list[Standing] = []
            for each in page.messages:
                found += await find(desk.spool, each.id, key.tenant)
            await desk.act(found, actions.let_go())
            if not page.next:
                return
            cursor = page.next


def _check(door: Door, key: ApiKey, batch: str) -> None:
    if not batches.is_batch(key.tenant, batch, door.clock.now()):
        raise Refusal(400, Problem(_NO_BATCH, "batch_id"), why=Why.INVALID)


def _shown(batch: str, word: Word | None) -> dict[str, str]:
    return {"batch_id": batch, "status": word or ""}


def _read_batch(plain: object) -> tuple[str, Word]:
    problems = Problems()
    root = Fields.of(plain, "", problems)
    batch = root.text("batch_id") if root is not None else None
    word = _word(root) if root is not None else None
    if batch == "":
        problems.add("batch_id", "The batch_id is required.")
    if problems.found or not batch or word is None:
        raise Refusal(400, *problems.found)
    return batch, word


def _read_word(plain: object) -> Word:
    problems = Problems()
    root = Fields.of(plain, "", problems)
    word = _word(root) if root is not None else None
    if word is None:
        raise Refusal(400, *problems.found)
    return word


def _word(root: Fields) -> Word | None:
    text = root.text("status")
    if text in _WORDS:
        return Word(text)
    if text is not None:
        root.problem("status", "The status must be pause or cancel.")
    return None
