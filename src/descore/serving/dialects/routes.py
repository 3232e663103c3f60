"""The routes of the dialects that a server speaks, and how they fit beside its own.

In: a service, whose settings name the dialects. Out: routes. Each has its path at the root, where the server's own
routes come first and then the dialects in the order in which they are named; and below the dialect's name, where
nothing else is: /unirl/score. So two dialects that share a path can be on at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from fastapi import FastAPI

from descore.serving.dialects.classify import classify_routes
from descore.serving.dialects.clips import DialectRoute
from descore.serving.dialects.cosmos_rl import cosmos_rl_routes
from descore.serving.dialects.flow_factory import flow_factory_routes
from descore.serving.dialects.flow_grpo import pickled_routes
from descore.serving.dialects.openai import openai_routes
from descore.serving.dialects.unirl import unirl_routes
from descore.serving.guard import RouteRules
from descore.serving.service import Service

_ROUTES: Mapping[str, Callable[..., list[DialectRoute]]] = MappingProxyType(
    {
        "flow_grpo": pickled_routes,
        "verl_omni": pickled_routes,
        "unirl": unirl_routes,
        "flow_factory": flow_factory_routes,
        "cosmos_rl": cosmos_rl_routes,
        "openai": openai_routes,
        "classify": classify_routes,
    }
)
_OWN = (("GET", "/health"), ("GET", "/v1/models"))
"""Routes of the server that some dialects have too; at the root they answer what both need."""


def dialect_routes(service: Service) -> list[DialectRoute]:
    """The routes of the service's dialects, no two for one method and path."""
    routes: dict[tuple[str, str], DialectRoute] = {}
    for route in _all_of(service):
        routes.setdefault((route.method, route.path), route)
    return [route for key, route in routes.items() if key not in _OWN]


def _all_of(service: Service) -> Iterator[DialectRoute]:
    for dialect in service.settings.dialects:
        for route in _ROUTES[dialect](service, dialect=dialect):
            yield route
            yield replace(route, path=f"/{dialect}{route.path}".rstrip("/"))


def rules_of(routes: Iterable[DialectRoute]) -> RouteRules:
    """What the guard must know of routes that are not the server's own."""
    listed = list(routes)
    return RouteRules(
        forms={(route.method, route.path): route.form for route in listed},
        without_clips=frozenset(route.path for route in listed if not route.has_clips),
    )


def add_routes(app: FastAPI, routes: Iterable[DialectRoute]) -> None:
    """Add routes to an app. They are not in its schema: what they take is for their own projects to say."""
    for route in routes:
        app.add_route(route.path, route.endpoint, methods=[route.method], include_in_schema=False)
