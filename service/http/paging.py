"""Paging: one format of list pages for every resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel
from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute

from service.errors import InvalidInput
from service.store.base import Tx

T = TypeVar("T")
Row = TypeVar("Row")


class Page(BaseModel, Generic[T]):
    """One page of a list. `total` counts the whole list."""

    items: list[T]
    total: int
    page: int
    page_size: int


class PageQuery(BaseModel):
    """The requested page of a list and its order: `sort=-created_at` puts the newest first."""

    page: int
    page_size: int
    sort: str | None


def _page_query(
    page: Annotated[int, Query(ge=1, le=10**9)] = 1,
    page_size: Annotated[int, Query(ge=1, le=500)] = 50,
    sort: Annotated[str | None, Query(max_length=64)] = None,
) -> PageQuery:
    return PageQuery(page=page, page_size=page_size, sort=sort)


PageDep = Annotated[PageQuery, Depends(_page_query)]
Columns = Mapping[str, InstrumentedAttribute[Any]]


def paged(
    tx: Tx,
    rows: Select[Row],
    query: PageQuery,
    columns: Columns,
    key: InstrumentedAttribute[Any],
    public: Callable[[Row], T],
    default: str = "-created_at",
) -> Page[T]:
    """Return one page of `rows`. `sort` may name one of `columns`; `key` breaks ties.

    Raises:
        InvalidInput: `sort` names another column.
    """
    sort = query.sort or default
    name = sort.removeprefix("-")
    if name not in columns:
        raise InvalidInput("sort", sort, f"must be one of {', '.join(sorted(columns))}, with - for descending")
    total = tx.session.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
    order = [columns[name].desc(), key.desc()] if sort.startswith("-") else [columns[name], key]
    wanted = rows.order_by(*order).offset((query.page - 1) * query.page_size).limit(query.page_size)
    items = [public(row) for row in tx.session.execute(wanted).scalars()]
    return Page(items=items, total=total, page=query.page, page_size=query.page_size)
