"""Each recipe of docs/recipes.md pushes the file of its program, value by value."""

from __future__ import annotations

import re

import pytest
from pages import ROOT, blocks_of
from recipes import FILES, SENT
from versions import importable

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

RECIPES = [block for block in blocks_of(ROOT / "docs" / "recipes.md") if block.language == "python"]


def path_of(recipe) -> str:
    return re.search(r'path="/data/([^"]+)"', recipe.text)[1]


def test_each_file_has_a_recipe_and_each_recipe_a_file():
    assert [path_of(recipe) for recipe in RECIPES] == list(SENT)
    assert len(FILES) == len(SENT)


@pytest.mark.parametrize("recipe", RECIPES, ids=path_of)
def test_a_recipe_pushes_the_file_of_its_program(recipe, sandbox, airflow_database, tmp_path):
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    made = []

    def operator(**parameters):
        made.append(UpdateCustomersOperator(**parameters))

    code = importable(recipe.text).replace('"/data/', f'"{tmp_path}/')
    code = re.sub(r"^from airflow_provider_bubblehouse\.operators.*$", "", code, flags=re.MULTILINE)
    exec(compile(code, str(recipe), "exec"), {"UpdateCustomersOperator": operator})
    (task,) = made
    summary = task.execute({})
    assert summary["invalid"] == 0
    assert [customer for call in sandbox.calls for customer in call.customers] == SENT[path_of(recipe)]
