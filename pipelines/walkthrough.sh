#!/bin/sh
# From simulated scenes to a published map with a model of one's own, for one of five recipes:
#
#   sh pipelines/walkthrough.sh ugs-1m [FOLDER]
#
# Two towns: the model learns on one and is judged on the other. Networks are far smaller than
# published so that two processor cores do it in minutes; leave the settings out for the real ones.
set -eu
recipe=$1
folder=${2:-build/walkthrough}
mapper=${MAPPER:-.venv/bin/mapper}
here=$(dirname "$0")

# the model that the first map is made with, side of the samples, and the smaller network
case $recipe in
  ugs-1m)
    first=rgb-baseline side=128
    set -- 'network.options={backbone: resnet18, width: 0.25}' patch=96 optimizer.rate=0.002 ;;
  urban-10m)
    first=spectral-baseline side=64
    set -- network.options.width=8 patch=64 optimizer.rate=0.004 ;;
  openearthmap)
    first=rgb-baseline side=128
    set -- 'network.options={backbone: resnet18, width: 0.25}' network.pretrained=null patch=96 \
      optimizer.rate=0.002 ;;
  subpixel-2m)
    first=spectral-baseline side=128
    set -- 'network.options={backbone: mit-b0, width: 32}' network.pretrained=null patch=96 \
      patches=64 optimizer.rate=0.001 schedule.warmup=10 ;;
  fbp-24)
    first=rgb-baseline side=64
    set -- network.options.width=8 patch=64 batch=8 optimizer.rate=0.05 ;;
  *)
    echo "no walkthrough for $recipe; use ugs-1m, urban-10m, openearthmap, subpixel-2m or fbp-24" >&2
    exit 2 ;;
esac
settings='--set epochs=3 --set patches=64 --set batch=8 --set split.held_out=[maple]'

if [ ! -e "$folder/world/catalog.json" ]; then
  "$mapper" simulate --aoi "$here/two-towns.geojson" --out "$folder/world"
fi
# shellcheck disable=SC2086  # settings are words
{
  place="--aoi $folder/world/cities.geojson --catalog $folder/world/catalog.json --year 2022"
  "$mapper" run $place --recipe "$recipe" --model "$first" --out "$folder/$recipe/maps"
  "$mapper" samples "$folder/$recipe/maps" --labels "$folder/world/simulated-truth" \
    --size "$side" --per-class 8 --out "$folder/$recipe/samples"
  for setting; do settings="$settings --set '$setting'"; done
  eval "\"$mapper\" train $recipe --data \"$folder/$recipe/samples\" \
    --out \"$folder/$recipe/training\" --device cpu $settings"
  "$mapper" export "$folder/$recipe/training" --format onnx --format torchscript \
    --name "own-$recipe" --out "$folder/$recipe/model"
  "$mapper" model check "$folder/$recipe/model"
  eval "\"$mapper\" evaluate \"$folder/$recipe/model\" --data \"$folder/$recipe/samples\" \
    --recipe $recipe --part validation --out \"$folder/$recipe/evaluation\" $settings"
  "$mapper" run $place --recipe "$recipe" --model "$folder/$recipe/model" --refresh \
    --out "$folder/$recipe/maps"
}
