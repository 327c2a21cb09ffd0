"""Laws of ldm-jax-studio: one sentence for what cannot be served."""

import sys

import pytest

from ldm_jax.studio import command


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    ([], 'Give either --model=shareable.zip or --workdir=W'),
    (['--model=a', '--workdir=b'], 'Give either'),
    (['--model=none.zip', '--port=70000'], '--port is 70000'),
  ],
)
def test_flags_that_do_not_fit_are_one_sentence(flags, says, capsys):
  assert command.main(flags) == 2
  told = capsys.readouterr().err
  assert says in told and told.strip().count('\n') == 0


def test_a_model_that_is_not_there_is_one_sentence(capsys):
  pytest.importorskip('starlette', reason='needs the extra studio')
  assert command.main(['--model=none.zip']) == 2
  assert 'is no model' in capsys.readouterr().err


def test_without_the_extra_the_command_says_how_to_install_it(capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'starlette.applications', None)
  monkeypatch.delitem(sys.modules, 'ldm_jax.studio.server', raising=False)
  monkeypatch.delattr('ldm_jax.studio.server', raising=False)
  monkeypatch.setitem(sys.modules, 'uvicorn', None)
  assert command.main(['--model=none.zip']) == 2
  assert "pip install 'ldm-jax[studio]'" in capsys.readouterr().err


def test_help_shows_both_ways(capsys):
  assert command.main(['--help']) == 0
  told = capsys.readouterr().out
  assert '--model=shareable.zip' in told and '--workdir=W' in told
